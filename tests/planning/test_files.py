"""Files stand in an identity by their content."""

import os

from trimtab.pipelines.planning import files


def test_content_hash_of_a_folder(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "file").write_text("x")
        (tmp_path / name / ".hidden").write_text(name)
    assert files.content_hash(tmp_path / "one") == files.content_hash(tmp_path / "two")
    (tmp_path / "two" / "sub" / "file").rename(tmp_path / "two" / "file")
    assert files.content_hash(tmp_path / "one") != files.content_hash(tmp_path / "two")


def test_large_files_are_remembered_by_size_and_time(tmp_path):
    file = tmp_path / "big"
    file.write_bytes(b"a" * (1 << 24))
    first = files.content_hash(file)
    status = file.stat()
    file.write_bytes(b"b" * (1 << 24))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert files.content_hash(file) != first


def test_bare_words_are_never_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").mkdir()
    assert not files.is_local("train")
    assert files.is_local("./train")
    assert not files.is_local("hub/name")
