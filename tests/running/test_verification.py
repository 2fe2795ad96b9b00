"""`trimtab verify` names every file of a store that is not as it was written."""

import os
import shutil

import pytest
from run_steps import write_recipe

from trimtab.pipelines.planning import files
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.training import checkpoints
from trimtab.scripts import cli, verify

ONE, TWO = "one-0000000a", "two-0000000b"


def flip(path):
    """Other bits, with the size and the times of before."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def store(tmp_path):
    """A run directory of two steps, the second with a checkpoint and an adapter, and their links."""
    run = tmp_path / "runs" / "mine"
    for name in (ONE, TWO):
        partial = artifacts.fresh(run / name)
        (partial / "model.safetensors").write_bytes(name.encode())
        (partial / "inside").mkdir()
        (partial / "inside" / "rows").write_text("rows")
        (run / name / "metrics.jsonl").write_text('{"x": 1}\n')
    (run / TWO / "adapter").mkdir()
    (run / TWO / "adapter" / "adapter_model.safetensors").write_bytes(b"adapter")
    checkpoint = run / TWO / "checkpoints" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "optimizer.pt").write_bytes(b"moments")
    checkpoints.write_mark(checkpoint, {})
    (run / TWO / "checkpoints" / "checkpoint-4").mkdir()  # which saving was interrupted
    for name in (ONE, TWO):
        artifacts.publish(run / name, {"fingerprint": name[-8:]})
        (run / name[:3]).symlink_to(name)
    return run


def test_a_whole_store_is_read_whole(store, capsys):
    assert verify.main([str(store)]) == 0
    headings, *lines = capsys.readouterr().out.splitlines()
    assert headings.split() == ["folders", "files", "bytes", "seconds", "damaged"]
    artifacts_line, checkpoints_line = (line.split() for line in lines)
    size = 2 * (len(ONE) + 4 + 9) + len("adapter")
    assert artifacts_line == ["artifacts", "2", "7", str(size), artifacts_line[4], "0"]
    assert checkpoints_line[:4] == ["checkpoints", "1", "1", "7"]
    assert verify.main([str(store.parent)]) == 0  # all recipes


def cut(path):
    os.truncate(path, 2)


def add(path):
    path.write_text("x")


def empty(path):
    path.write_text("")


def copy_from_the_first(path):
    shutil.copy(path.parents[1] / ONE / path.name, path)


CHECKPOINT = f"{TWO}/checkpoints/checkpoint-2"
DAMAGES = [
    (flip, f"{ONE}/output/model.safetensors", "has other content than was written"),
    (cut, f"{ONE}/output/inside/rows", "has 2 bytes, 4 were written"),
    (os.unlink, f"{TWO}/output/inside/rows", "is missing"),
    (shutil.rmtree, f"{TWO}/output", "is missing"),
    (add, f"{TWO}/output/more.parquet", "was not written by the step"),
    (empty, f"{TWO}/done.json", "is empty"),
    (os.unlink, f"{TWO}/done.json", "is missing beside the output"),
    (copy_from_the_first, f"{TWO}/done.json", "is that of another step, 0000000a"),
    (flip, f"{TWO}/adapter/adapter_model.safetensors", "has other content than was written"),
    (empty, f"{TWO}/metrics.jsonl", "has 0 bytes, 9 were written"),
    (flip, f"{CHECKPOINT}/optimizer.pt", "has other content than was written"),
    (os.unlink, f"{CHECKPOINT}/optimizer.pt", "is missing"),
    (add, f"{CHECKPOINT}/more.pt", "was not written by the step"),
    (cut, f"{CHECKPOINT}/complete.json", "does not list the files that were written"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "path", "what"), DAMAGES, ids=[" ".join(case[1:]) for case in DAMAGES])
def test_every_damage_is_named(store, damage, path, what, capsys):
    damage(store / path)
    assert verify.main([str(store)]) == 1
    assert f"{store}/{path} {what}\n" in capsys.readouterr().out
    assert verify.main([str(store / path[:3])]) == 1  # the step alone, by its link


def test_all_are_named_at_once(store, capsys):
    cases = [case for case in DAMAGES if case[1].startswith((ONE, f"{CHECKPOINT}/more"))]
    for damage, path, _ in cases:
        damage(store / path)
    assert verify.main([str(store)]) == 1
    assert capsys.readouterr().out.count(str(store)) == len(cases) == 3


def test_what_was_read_before_is_read_again(store, monkeypatch):
    """Bits that change under a file of the same times are unknown to the memory of hashes."""
    monkeypatch.setattr(files, "RECENT", 0)
    assert verify.main([str(store)]) == 0
    weights = store / ONE / "output" / "model.safetensors"
    flip(weights)
    monkeypatch.setattr(files, "known_hash", lambda *_: pytest.fail("not asked"))
    assert verify.main([str(store)]) == 1


def test_a_step_on_a_disk_that_is_not_there(store, tmp_path, capsys):
    (store / ONE).rename(tmp_path / "disk")
    (store / ONE).symlink_to(tmp_path / "disk")
    assert verify.main([str(store)]) == 0
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    assert verify.main([str(store)]) == 1
    assert f"{store}/{ONE}/its folder is a link to nothing" in capsys.readouterr().out


def test_a_recipe_stands_for_its_steps(tmp_path, capsys, monkeypatch):
    recipe = str(write_recipe(tmp_path, {"scratch": {"corpus": "org/name"}}))
    monkeypatch.setattr("sys.argv", ["trimtab", "verify", recipe])
    assert cli.main() == 2
    assert "has no finished step" in capsys.readouterr().err
    (tmp_path / "runs").mkdir()
    assert verify.main([str(tmp_path / "runs")]) == 2
    assert verify.main([str(tmp_path / "nowhere")]) == 2
