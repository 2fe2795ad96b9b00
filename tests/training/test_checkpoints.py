"""A half-written checkpoint is never resumed from."""

import json

from trimtab.pipelines.training.checkpoints import MARK, newest


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
