"""Constrained GRPO from any checkpoint ends as an undisturbed run: weights, multipliers, on one rank and on two."""

import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from run_steps import run_recipe, write_recipe
from test_constrained import logged, resumed, sha256, stages
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.scripts import train


def run_again(tmp_path, block, whole, at):
    """The step of a run of its own that went on from the checkpoint of step `at` of the step `whole`."""
    folder = tmp_path / str(at)
    folder.mkdir()
    write_recipe(folder, block, output_dir=str(folder / "runs"))
    again = resumed(folder, whole, at)
    assert train.main([str(folder / "recipe.yaml")]) == 0
    assert artifacts.read_done(again.dir)["metrics"]["train/resumed_from"] == at
    return again


SETTINGS = {
    "plain": {},
    "buffered": {"num_iterations": 2, "steps_per_generation": 3},
    "accumulated": {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "per_device_train_batch_size": 4},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_from_every_step_a_run_ends_with_equal_weights_and_multipliers(setting, model, prompts, tmp_path):
    """In the first epoch and the second, and between two rollouts, where trl goes another way."""
    block = stages(model, prompts, train={**SETTINGS[setting], "max_steps": 9, "save_total_limit": 20})
    first = tmp_path / "undisturbed"
    first.mkdir()
    whole = run_recipe(first, block)["constrained"]
    assert logged(whole)[-1]["train/epoch"] > 1 or setting == "buffered"
    for at in range(1, 9):
        again = run_again(tmp_path, block, whole, at)
        assert sha256(again) == sha256(whole), f"from step {at}"
        last = [step.dir / "checkpoints" / "checkpoint-9" for step in (whole, again)]
        assert (last[0] / "objective.json").read_text() == (last[1] / "objective.json").read_text()
        for a, b in zip(*(_tensors(torch.load(path / "optimizer.pt")) for path in last), strict=True):
            assert torch.equal(a, b)


def _tensors(tree):
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in _tensors(value)]
    return [tree] if isinstance(tree, torch.Tensor) else []


def two_ranks_command(recipe):
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml",
            "--num_processes", "2", "scripts/train.py", str(recipe)]  # fmt: skip


def two_ranks(recipe):
    done = subprocess.run(two_ranks_command(recipe), cwd=ROOT, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_two_ranks_resume_exactly_and_agree_on_the_multipliers(model, prompts, tmp_path):
    """That they agree is checked at every checkpoint, or there is none."""
    block = stages(model, prompts, train={**SETTINGS["buffered"], "per_device_train_batch_size": 4, "max_steps": 9,
                                          "save_total_limit": 20})  # fmt: skip
    recipe = write_recipe(tmp_path, block, wandb=False)
    code, out = two_ranks(recipe)
    assert code == 0, out
    (whole,) = Recipe.load(str(recipe)).steps
    assert artifacts.read_done(whole.dir)["world_size"] == 2
    for at in (2, 7):
        folder = tmp_path / str(at)
        folder.mkdir()
        path = write_recipe(folder, block, wandb=False, output_dir=str(folder / "runs"))
        again = resumed(folder, whole, at)
        code, out = two_ranks(path)
        assert code == 0, out
        assert sha256(again) == sha256(whole)
        last = [step.dir / "checkpoints" / "checkpoint-9" / "objective.json" for step in (whole, again)]
        assert last[0].read_text() == last[1].read_text()
