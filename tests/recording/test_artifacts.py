"""Publication is atomic, a lock names its holder, and a half-written checkpoint is never resumed from."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from trimtab.pipelines.planning import files
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.running import locking
from trimtab.pipelines.training.checkpoints import MARK, newest


def test_publish_renames_then_writes_done(tmp_path):
    partial = artifacts.fresh(tmp_path)
    (partial / "a.txt").write_text("a")
    record = artifacts.publish(tmp_path, {"metrics": {"x": 1.0}})
    assert not partial.exists()
    assert (tmp_path / "output" / "a.txt").read_text() == "a"
    assert record["files"]["a.txt"]["sha256"] == files.content_hash(tmp_path / "output" / "a.txt")
    assert artifacts.read_done(tmp_path) == json.loads(json.dumps(record))
    assert record["versions"]["python"]


def test_a_crash_before_done_leaves_the_step_pending_and_publishable(tmp_path, monkeypatch):
    (artifacts.fresh(tmp_path) / "a.txt").write_text("old")
    monkeypatch.setattr(files, "write_atomically", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        artifacts.publish(tmp_path, {})
    assert artifacts.read_done(tmp_path) is None
    monkeypatch.undo()
    (artifacts.fresh(tmp_path) / "b.txt").write_text("new")
    artifacts.publish(tmp_path, {})
    assert [p.name for p in (tmp_path / "output").iterdir()] == ["b.txt"]


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


def test_second_launcher_is_refused_and_told_who_the_first_is(tmp_path):
    code = (
        "import sys; from pipelines import artifacts; from pathlib import Path\n"
        f"with locking.lock(Path({str(tmp_path)!r}), 'second'): pass"
    )
    with locking.lock(tmp_path, "first command"):
        out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode != 0
    assert f"process {os.getpid()}" in out.stderr
    assert "first command" in out.stderr
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def checkpoint(folder, step, mark=True):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"12345")
    if mark:
        (path / MARK).write_text(json.dumps({"model.safetensors": 5}))
    return path


def test_newest_complete_checkpoint(tmp_path):
    assert newest(tmp_path) is None
    good = checkpoint(tmp_path, 9)
    checkpoint(tmp_path, 10, mark=False)  # killed before the mark
    cut = checkpoint(tmp_path, 11)
    (cut / "model.safetensors").write_bytes(b"123")  # shorter than it was
    gone = checkpoint(tmp_path, 12)
    (gone / "model.safetensors").unlink()
    assert newest(tmp_path) == good
