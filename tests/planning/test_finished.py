"""A look at a finished step tells whether its artifact is still what was written."""

import json
import os
import shutil
import time

import pytest

from trimtab.pipelines.planning import files, finished
from trimtab.pipelines.recording import artifacts

SIZE = 600


@pytest.fixture
def folder(tmp_path):
    """A finished step of two files."""
    partial = artifacts.fresh(tmp_path / "step")
    (partial / "inside").mkdir()
    (partial / "weights").write_bytes(b"w" * SIZE)
    (partial / "inside" / "rows").write_text("rows")
    artifacts.publish(tmp_path / "step", {"fingerprint": "f"})
    return tmp_path / "step"


def cut(folder):
    os.truncate(folder / "output" / "weights", 512)


def emptied(folder):
    (folder / "output" / "inside" / "rows").write_text("")


def removed(folder):
    (folder / "output" / "inside" / "rows").unlink()


def a_folder_in_its_place(folder):
    removed(folder)
    (folder / "output" / "inside" / "rows").mkdir()


def output_removed(folder):
    shutil.rmtree(folder / "output")


def output_a_file(folder):
    output_removed(folder)
    (folder / "output").write_text("x")


def output_a_link_to_nothing(folder):
    output_removed(folder)
    (folder / "output").symlink_to("nowhere")


def changed_inside(folder):
    weights = folder / "output" / "weights"
    weights.write_bytes(b"w" * (SIZE - 8) + b"v" * 8)
    os.utime(weights, ns=(time.time_ns(), time.time_ns() + 10**9))


def written(text):
    return lambda folder: (folder / "done.json").write_bytes(text)


def done_a_folder(folder):
    (folder / "done.json").unlink()
    (folder / "done.json").mkdir()


def done_a_link_to_nothing(folder):
    (folder / "done.json").unlink()
    (folder / "done.json").symlink_to("nowhere")


def of_another(folder):
    record = json.loads((folder / "done.json").read_text())
    (folder / "done.json").write_text(json.dumps(record | {"fingerprint": "g"}))


def sizes_as_words(folder):
    record = json.loads((folder / "done.json").read_text())
    record["files"]["weights"]["bytes"] = "600"
    (folder / "done.json").write_text(json.dumps(record))


DAMAGES = [
    (cut, "output/weights has 512 bytes, 600 were written"),
    (emptied, "output/inside/rows has 0 bytes, 4 were written"),
    (removed, "output/inside/rows is missing"),
    (a_folder_in_its_place, "output/inside/rows is no file"),
    (output_removed, "output is missing"),
    (output_a_file, "output is no folder"),
    (output_a_link_to_nothing, "output is a link to nothing"),
    (changed_inside, "output/weights has other content than was written"),
    (written(b""), "done.json is empty"),
    (written(b'{"files": '), "done.json is no JSON"),
    (written(b"\xff\xfe\x00"), "done.json is no JSON"),
    (written(b"[" * 100_000), "done.json is no JSON"),
    (written(b"[]"), "done.json does not list the files that were written"),
    (written(b'{"files": 3}'), "done.json does not list the files that were written"),
    (sizes_as_words, "done.json does not list the files that were written"),
    (done_a_folder, "done.json cannot be read: Is a directory"),
    (done_a_link_to_nothing, "done.json cannot be read: No such file or directory"),
    (of_another, "done.json is that of another step, g"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES, ids=[sentence for _, sentence in DAMAGES])
def test_a_look_names_what_is_damaged(folder, damage, sentence):
    assert finished.damage(folder, "f") == ()
    damage(folder)
    assert finished.damage(folder, "f") == (sentence,)


def test_every_damaged_file_is_named(folder):
    cut(folder)
    removed(folder)
    assert len(finished.damage(folder, "f")) == 2


def test_a_file_that_cannot_be_read_is_damaged(folder, monkeypatch):
    """By a stub, since root may read everything."""
    whole = os.stat

    def refused(path, *words, **options):
        if str(path).endswith("weights"):
            raise PermissionError(13, "Permission denied")
        return whole(path, *words, **options)

    monkeypatch.setattr(os, "stat", refused)
    assert finished.damage(folder, "f") == ("output/weights cannot be read: Permission denied",)


def test_what_is_not_finished_is_not_damaged(tmp_path):
    assert finished.damage(tmp_path / "step", "f") is None
    (artifacts.fresh(tmp_path / "step") / "a").write_text("a")
    assert finished.damage(tmp_path / "step", "f") is None


def test_a_folder_on_a_disk_that_is_not_there_is_damaged_and_not_pending(folder, tmp_path):
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert finished.damage(folder, "f") == ()
    (tmp_path / "elsewhere").rename(tmp_path / "unmounted")
    assert finished.damage(folder, "f") == ("its folder is a link to nothing",)


def test_what_is_restored_is_whole_again(folder):
    backup = (folder / "output" / "weights").read_bytes()
    changed_inside(folder)
    assert finished.damage(folder, "f")
    (folder / "output" / "weights").write_bytes(backup)
    assert finished.damage(folder, "f") == ()


def test_a_look_knows_what_a_thorough_one_has_met(folder, monkeypatch):
    """Bits that change and leave all times alone are met by who reads them, and then remembered."""
    weights = folder / "output" / "weights"
    weights.write_bytes(b"v" * SIZE)
    os.utime(weights, ns=(0, 0))
    assert finished.damage(folder, "f") == ()
    monkeypatch.setattr(files, "RECENT", 0)
    files.read_hash(weights)
    assert finished.damage(folder, "f") == ("output/weights has other content than was written",)


def test_a_look_reads_no_artifact(folder, monkeypatch):
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail(f"{path} was read"))
    assert finished.damage(folder, "f") == ()
