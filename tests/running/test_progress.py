"""What of a recipe is done, what runs and how far it is, and how long the rest takes."""

import json
import time

import pytest
from conftest import SFT_ROWS
from run_steps import write_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts, locks
from trimtab.pipelines.running import progress
from trimtab.scripts import store


def rows(*moments):
    return [{"time": moment, "step": step, "train/loss": 1.0} for step, moment in moments]


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        ([], None),
        ([(5, 100)], (5, 0)),
        ([(2, 100), (4, 104)], (4, 2)),
        ([(2, 100), (4, 104), (6, 5000), (8, 5006)], (8, 3)),  # a pause
        ([(2, 100), (4, 104), (3, 110), (5, 112)], (5, 1)),  # gone back to a checkpoint
    ],
)
def test_the_pace_is_that_of_the_launch(moments, expected):
    reached = progress.pace([{"time": 1, "eval/loss": 2}, *rows(*moments)])
    assert (reached and (reached.step, reached.seconds)) == expected


def test_each_step_is_done_running_or_next(model, write, tmp_path, capsys):
    data = write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in SFT_ROWS))
    train = {"max_steps": 10, "per_device_train_batch_size": 2}
    sft = {"kind": "sft", "model": {"model_name_or_path": model}, "data": data, "train": train}
    mixed = {"kind": "mix", "synthetic": [data], "real": data, "real_fraction": 0.5}
    stages = {"mixed": mixed, "first": sft, "second": {**sft, "model": {"model_name_or_path": "$first"}}}
    path = str(write_recipe(tmp_path, stages))
    done, running, last = Recipe.load(path).steps
    artifacts.fresh(done.dir)
    artifacts.publish(done.dir, {"fingerprint": done.fingerprint, "metrics": {}, "seconds": 3})
    launcher = locks.Lock(locks.of_folder(running.dir), "test/first")
    queued = locks.Lock(locks.of_folder(last.dir), "test/second")  # which the same launch is to make
    launcher.take()
    queued.take()
    artifacts.fresh(running.dir)
    now = time.time()
    logged = "".join(json.dumps(row) + "\n" for row in rows((2, now - 200), (4, now)))
    (running.dir / "metrics.jsonl").write_text(logged)
    assert store.main(["status", path]) == 0
    launcher.release()
    queued.release()
    head, _, *lines, summary = capsys.readouterr().out.splitlines()
    assert head == "test: nobody works on it"
    assert [line.split()[:2] for line in lines] == [["mixed", "done"], ["first", "running"], ["second", "pending"]]
    assert "step 4 of 10; process " in lines[1]
    assert lines[1].endswith(("10 min 00 s", "9 min 59 s", "9 min 58 s"))  # six steps of 100 s
    assert "after first" in lines[2]
    assert summary.startswith("1 of 3 steps are done; 10 min")
