"""Constrained GRPO from any checkpoint ends as an undisturbed run: weights, multipliers, on one rank and on two."""

import pytest
import torch
from constrained_runs import SETTINGS, constrained, logged, resumed, run_again
from launches import TWO, trained, weights
from run_steps import run_recipe, write_recipe

from trimtab.pipelines.recording import artifacts


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_from_every_step_a_run_ends_with_equal_weights_and_multipliers(setting, model, prompts, tmp_path):
    """In the first epoch and the second, and between two rollouts, where trl goes another way."""
    block = constrained(model, prompts, train={**SETTINGS[setting], "max_steps": 9, "save_total_limit": 20})
    first = tmp_path / "undisturbed"
    first.mkdir()
    whole = run_recipe(first, block)["constrained"]
    assert logged(whole)[-1]["train/epoch"] > 1 or setting == "buffered"
    for at in range(1, 9):
        again = run_again(tmp_path, block, whole, at)
        assert weights(again) == weights(whole), f"from step {at}"
        last = [step.dir / "checkpoints" / "checkpoint-9" for step in (whole, again)]
        assert (last[0] / "objective.json").read_text() == (last[1] / "objective.json").read_text()
        for a, b in zip(*(_tensors(torch.load(path / "optimizer.pt")) for path in last), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("trainer", ["grpo", "ppo"])
def test_proximal_steps_go_on_in_the_midst_of_a_rollout(trainer, model, prompts, tmp_path):
    """The second rollout has three steps, of which two come after the stop, held by what was sampled before it."""
    train = {"num_iterations": 3, "max_steps": 6}
    block = constrained(model, prompts, trainer=trainer, proximal=0.3, distance="squared", train=train)
    whole = run_recipe(tmp_path, block)["constrained"]
    held = [row["train/proximal/distance"] for row in logged(whole)]
    assert held[0] == held[3] == 0 < min(held[4:]), "a rollout's first step is where it was sampled"
    again = run_again(tmp_path, block, whole, 4)
    hashes = [
        {
            file: entry["sha256"]
            for file, entry in artifacts.read_done(step.dir)["files"].items()
            if "safetensors" in file
        }
        for step in (whole, again)
    ]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == (2 if trainer == "ppo" else 1), "critics, too"
    assert [row["train/proximal/distance"] for row in logged(again)] == held[4:]
    last = [step.dir / "checkpoints" / "checkpoint-6" / "objective.json" for step in (whole, again)]
    assert last[0].read_text() == last[1].read_text()


def _tensors(tree):
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in _tensors(value)]
    return [tree] if isinstance(tree, torch.Tensor) else []


@pytest.mark.slow
def test_two_ranks_resume_exactly_and_agree_on_the_multipliers(model, prompts, tmp_path):
    """That they agree is checked at every checkpoint, or there is none."""
    options = {**SETTINGS["buffered"], "per_device_train_batch_size": 4, "max_steps": 9, "save_total_limit": 20}
    block = constrained(model, prompts, train=options)
    whole = trained(write_recipe(tmp_path, block, wandb=False))["constrained"]
    assert artifacts.read_done(whole.dir)["world_size"] == 2
    for at in (2, 7):
        folder = tmp_path / str(at)
        folder.mkdir()
        path = write_recipe(folder, block, wandb=False, output_dir=str(folder / "runs"))
        again = resumed(folder, whole, at, TWO)
        trained(path)
        assert weights(again) == weights(whole)
        last = [step.dir / "checkpoints" / "checkpoint-9" / "objective.json" for step in (whole, again)]
        assert last[0].read_text() == last[1].read_text()
