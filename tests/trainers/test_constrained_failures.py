"""Rewards that fail in the middle of constrained GRPO: the run stops, resumably, or leaves completions out."""

import threading

import pytest
import torch
from constrained_runs import REWARDS, constrained, logged
from launches import TWO, two_ranks, weights
from outputs import metrics_of
from run_steps import run_recipe, write_recipe
from safetensors.torch import load_file

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.scripts import train


@pytest.mark.slow
def test_a_reward_that_fails_on_one_rank_stops_both_with_its_name(model, prompts, tmp_path):
    fault = "scores[1] = float('nan') if __import__('os').environ['RANK'] == '1' else scores[1]"
    (tmp_path / "broken.py").write_text(BROKEN.format(fault=fault))
    rewards = {"words": {"kind": "trl_function", "path": str(tmp_path / "broken.py") + ":words", "threshold": 9.0}}
    block = constrained(model, prompts, rewards=rewards, train={"per_device_train_batch_size": 4, "save_steps": 100})
    recipe = write_recipe(tmp_path, block, wandb=False)
    code, out = two_ranks(recipe)
    assert code != 0
    assert "reward 'words' failed on completion 5 " in out
    (step,) = Recipe.load(str(recipe), ranks=TWO).steps
    (tmp_path / "mended").touch()
    code, out = two_ranks(recipe)
    assert code == 0, out
    assert metrics_of(step)["train/resumed_from"] == 3


BROKEN = """
from pathlib import Path

def words(completions, trainer_state=None, **columns):
    scores = [float(len(c[0]["content"])) for c in completions]
    if trainer_state.global_step >= 3 and not Path(__file__).with_name("mended").exists():
        {fault}
    return scores
"""


@pytest.mark.parametrize(("fault", "reason"), [
    ("scores[2] = float('nan')", "the score is nan"),
    ("scores[2] = float('inf')", "the score is inf"),
    ("scores = scores[:5]", "5 scores came back for 8 completions"),
])  # fmt: skip
def test_a_reward_that_fails_stops_at_a_checkpoint_and_the_same_command_goes_on(
    fault, reason, model, prompts, tmp_path, capsys
):
    (tmp_path / "broken.py").write_text(BROKEN.format(fault=fault))
    words = {"kind": "trl_function", "path": str(tmp_path / "broken.py") + ":words", "threshold": 9.0}
    rewards = {"words": words, "as": REWARDS["as"]}
    block = constrained(model, prompts, rewards=rewards, train={"save_steps": 100})
    path = str(write_recipe(tmp_path, block, wandb=False))
    assert train.main([path]) != 0
    error = capsys.readouterr().err
    assert "reward 'words' failed on completion " in error
    assert reason in error
    assert "rollout after step 3" in error
    assert "watchdog" not in [thread.name for thread in threading.enumerate()]
    step = Recipe.load(path).steps[0]
    assert (step.dir / "checkpoints" / "checkpoint-3" / "complete.json").exists()
    (tmp_path / "mended").touch()
    assert train.main([path]) == 0
    assert metrics_of(step)["train/resumed_from"] == 3
    other = run_recipe(tmp_path, block, output_dir=str(tmp_path / "other"))["constrained"]
    assert weights(step) == weights(other)


@pytest.mark.parametrize("policy", ["abstain", "skip_group"])
def test_failed_completions_can_be_left_out(policy, model, prompts, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN.format(fault="scores[2] = float('nan')"))
    words = {"kind": "trl_function", "path": str(tmp_path / "broken.py") + ":words", "threshold": 9.0}
    rewards = {"words": {**words, "on_failure": policy, "max_failures": 0.2}}
    steps = run_recipe(tmp_path, constrained(model, prompts, rewards=rewards))
    assert all(row["train/loss"] == row["train/loss"] for row in logged(steps["constrained"]))
    tensors = load_file(steps["constrained"].output / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in tensors.values())
