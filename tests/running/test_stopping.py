"""How launches of several ranks end early: asked to by SIGTERM, or because a rank stands still."""

import signal

import pytest
from launches import TWO, finished, launch, ranks_words, two_ranks, until, warm
from run_steps import write_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.training.checkpoints import newest

pytestmark = pytest.mark.slow


def test_sigterm_leaves_a_checkpoint_of_the_last_step_and_a_rerun_goes_on(model, write, tmp_path):
    rows = [{"prompt": [{"role": "user", "content": "say a"}],
             "completion": [{"role": "assistant", "content": f"a {i} b"}]} for i in range(12)]  # fmt: skip
    stage = {"model": {"model_name_or_path": model}, "data": write("sft.jsonl", rows),
             "train": {"max_steps": 100, "per_device_train_batch_size": 2, "save_steps": 100_000, "logging_steps": 1,
                       "gradient_checkpointing": False}}  # fmt: skip
    recipe = str(write_recipe(tmp_path, {"sft": stage}, wandb=False))
    (step,) = Recipe.load(recipe, ranks=TWO).steps
    metrics = step.dir / "metrics.jsonl"
    process = launch("run.py", recipe, "--", "--num_processes", "2")  # of one rank: test_run.py
    until(lambda: metrics.exists() and metrics.read_text().count("\n") > 5)
    process.send_signal(signal.SIGTERM)
    code, out = finished(process, timeout=60)
    assert code == 143, out
    assert "was interrupted and has a checkpoint of step" in out
    checkpoint = newest(step.dir / "checkpoints")
    at = int(checkpoint.name.rpartition("-")[2])
    assert 5 <= at < 100
    assert not step.done
    code, out = two_ranks(recipe)
    assert code == 0, out
    assert artifacts.read_done(step.dir)["metrics"]["train/resumed_from"] == at


def test_a_rank_that_stands_still_ends_both_with_its_name(model, prompts, tmp_path):
    (tmp_path / "slow.py").write_text(
        "import os, time\n"
        "def slow(completions, trainer_state=None, **columns):\n"
        "    if trainer_state.global_step >= 2 and os.environ['RANK'] == '1':\n"
        "        time.sleep(600)\n"
        "    return [1.0] * len(completions)\n"
    )
    rewards = {"brief": {"kind": "length", "target": 5, "unit": "characters"},
               "slow": {"kind": "trl_function", "path": f"{tmp_path / 'slow.py'}:slow", "weight": 0}}  # fmt: skip
    settings = {"beta": 0.1, "num_generations": 4, "max_completion_length": 8, "per_device_train_batch_size": 4,
                "max_steps": 7, "logging_steps": 1, "save_steps": 1, "gradient_checkpointing": False}  # fmt: skip
    block = {"model": {"model_name_or_path": model}, "data": prompts, "method": "fixed", "train": settings,
             "rewards": rewards}  # fmt: skip
    recipe = write_recipe(tmp_path, {"constrained": block}, wandb=False)
    code, out = finished(warm.start("launch", ranks_words(recipe), TRIMTAB_STALL="6"), timeout=120)
    assert code != 0
    assert "has stood still for 6 s after step 2 (in the next step)" in out
    assert "most recent call first" in out  # the stacks, of the rank that hangs or of the one that waits for it
    (step,) = Recipe.load(str(recipe), ranks=TWO).steps
    assert (step.dir / "metrics.jsonl").exists()  # it had begun
