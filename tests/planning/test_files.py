"""Files stand in an identity by their content."""

import os

import pytest

from trimtab.pipelines.planning import files


def test_content_hash_of_a_folder(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "file").write_text("x")
        (tmp_path / name / ".hidden").write_text(name)
    assert files.content_hash(tmp_path / "one") == files.content_hash(tmp_path / "two")
    (tmp_path / "two" / "sub" / "file").rename(tmp_path / "two" / "file")
    assert files.content_hash(tmp_path / "one") != files.content_hash(tmp_path / "two")


@pytest.fixture
def big(tmp_path, monkeypatch):
    """A file whose hash is remembered, though it has just been written."""
    monkeypatch.setattr(files, "RECENT", 0)
    (tmp_path / "big").write_bytes(b"a" * files.LARGE)
    return tmp_path / "big"


def test_a_hash_is_remembered_until_the_file_changes(big, monkeypatch):
    first = files.content_hash(big)
    with monkeypatch.context() as unread:
        unread.setattr(files, "sha256", lambda path: pytest.fail(f"{path} was read again"))
        assert files.content_hash(big) == first
        files._remembered.clear()  # as in the next process
        assert files.content_hash(big) == first
    status = big.stat()
    big.write_bytes(b"b" * files.LARGE)
    os.utime(big, ns=(status.st_atime_ns, status.st_mtime_ns))  # as who restores a backup does
    assert files.content_hash(big) != first


def test_a_file_that_may_still_change_unseen_is_read_again(big, monkeypatch):
    monkeypatch.setattr(files, "RECENT", 10**12)
    first = files.file_hash(big)
    assert files.known_hash(str(big), big.stat()) is None
    assert files.file_hash(big) == first


def test_garbage_in_the_cache_is_no_hash(big):
    first = files.file_hash(big)
    for memo in files.cache_folder("sha256").iterdir():
        memo.write_bytes(b"\xff garbage")
    files._remembered.clear()
    assert files.file_hash(big) == first


def test_bare_words_are_never_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").mkdir()
    assert not files.is_local("train")
    assert files.is_local("./train")
    assert not files.is_local("hub/name")
