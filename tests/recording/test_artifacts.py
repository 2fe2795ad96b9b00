"""An artifact is published whole or not at all."""

import json

import pytest

from trimtab.pipelines.planning import files
from trimtab.pipelines.recording import artifacts


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
    monkeypatch.setattr(artifacts, "write_atomically", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        artifacts.publish(tmp_path, {})
    assert artifacts.read_done(tmp_path) is None
    monkeypatch.undo()
    (artifacts.fresh(tmp_path) / "b.txt").write_text("new")
    artifacts.publish(tmp_path, {})
    assert [p.name for p in (tmp_path / "output").iterdir()] == ["b.txt"]


def test_what_lies_beside_the_artifact_is_written_down_too(tmp_path):
    (artifacts.fresh(tmp_path) / "a.txt").write_text("a")
    (tmp_path / "metrics.jsonl").write_text("{}")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_text("w")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "state").write_text("not the artifact's")
    assert list(artifacts.publish(tmp_path, {})["beside"]) == ["adapter/weights", "metrics.jsonl"]
