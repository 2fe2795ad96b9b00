"""The record of a training that was interrupted between two logs is that of an undisturbed one."""

import shutil

import pytest
from chains import record
from conftest import PAIR_ROWS, SFT_ROWS
from constrained_runs import constrained
from run_steps import run_recipe
from short_trainings import TRAIN

from trimtab.pipelines.recording import artifacts

LOGGED = {**TRAIN, "max_steps": 5, "save_steps": 1, "logging_steps": 3}
RANKED_ROWS = [
    {"prompt": row["prompt"], "completions": [row["chosen"], [{"role": "assistant", "content": "c c"}]]}
    for row in PAIR_ROWS
]


def block(kind, model, prompts, write):
    """A training of a few steps, with a checkpoint of each and a log of the third."""
    if kind == "constrained":
        return constrained(model, prompts, train={"max_steps": 5, "logging_steps": 3, "num_iterations": 2})
    rows = write("rows.jsonl", {"sft": SFT_ROWS, "dpo": PAIR_ROWS, "reward": RANKED_ROWS}[kind])
    # 12 rows are 3 steps an epoch: sft ends with an epoch, the others within one
    train = {**LOGGED, "max_steps": 6} if kind == "sft" else LOGGED
    stage = {
        "model": {"model_name_or_path": model},
        "data": rows,
        "eval_data": rows,
        "audit": {"overlap": "warn"},
        "train": train,
    }
    return {kind: {**stage, **({"loss": "listwise"} if kind == "reward" else {})}}


@pytest.mark.parametrize("kind", ["sft", "dpo", "reward", "constrained"])
def test_the_record_is_that_of_an_undisturbed_training(kind, model, prompts, write, tmp_path):
    stages = block(kind, model, prompts, write)
    (tmp_path / "whole").mkdir()
    whole = run_recipe(tmp_path / "whole", stages)[kind]
    last = artifacts.read_done(whole.dir)["metrics"]["train/steps"]
    for number in (2, last):  # between two logs, and where nothing is left but the evaluation
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", folder, symlinks=True)
        step_dir = folder / whole.dir.relative_to(tmp_path / "whole")
        (step_dir / "done.json").unlink()
        for later in range(number + 1, last + 1):
            shutil.rmtree(step_dir / "checkpoints" / f"checkpoint-{later}")
        again = run_recipe(folder, stages)[kind]
        assert artifacts.read_done(again.dir)["metrics"]["train/resumed_from"] == number
        assert record(again.dir) == record(whole.dir)
