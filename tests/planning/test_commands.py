"""The command that launches a step, and the accelerate configuration that it names."""

import sys
from dataclasses import replace

import pytest
from conftest import ROOT
from planned import STAGES
from run_steps import write_recipe

from trimtab.pipelines.planning import commands
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe


@pytest.fixture
def recipe(tmp_path):
    return Recipe.load(str(write_recipe(tmp_path, STAGES)), ["seed=7"])


def test_a_config_is_a_name_of_ours_or_a_path(recipe, write):
    step = recipe.steps[0]
    assert commands.accelerate_config(step, "ddp") == ROOT / "accelerate_configs" / "ddp.yaml"
    assert commands.accelerate_config(replace(step, accelerate="zero3")).stem == "zero3"
    path = write("mine.yaml", "")
    assert str(commands.accelerate_config(replace(step, accelerate=path))) == path


def test_an_unknown_config_is_an_error_with_its_place(recipe):
    with pytest.raises(
        RecipeError, match=r"stages\.sft\.accelerate: no accelerate config 'dpp', did you mean 'ddp'\?"
    ):
        commands.accelerate_config(replace(recipe.steps[0], accelerate="dpp"))


def test_the_command_is_of_this_interpreter_and_from_the_current_folder(recipe, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert commands.command(recipe, recipe.steps[1], ["--num_processes", "2"], "cpu") == [
        sys.executable,
        "-m",
        "accelerate.commands.accelerate_cli",
        "launch",
        "--quiet",
        "--config_file",
        "accelerate_configs/cpu.yaml",
        "--num_processes",
        "2",
        "scripts/train.py",
        recipe.path,
        "seed=7",
        "--stage",
        "dpo",
    ]
    monkeypatch.chdir(tmp_path)
    assert str(ROOT / "scripts" / "train.py") in commands.command(recipe, recipe.steps[1], auto="cpu")


def test_what_is_printed_can_be_pasted(recipe, monkeypatch, tmp_path):
    """`accelerate` alone would be another environment's, or nobody's, where this one is not activated."""
    environment = tmp_path / "an environment" / "bin"
    environment.mkdir(parents=True)
    for name in ("python", "accelerate"):
        (environment / name).touch(mode=0o755)
    words = commands.command(recipe, recipe.steps[1], auto="cpu")
    monkeypatch.setattr(sys, "executable", str(environment / "python"))
    monkeypatch.setenv("PATH", str(environment))
    assert commands.typed(words).startswith("accelerate launch --quiet")
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path)
    assert commands.typed(words).startswith("'an environment/bin/accelerate' launch --quiet")
    (environment / "accelerate").unlink()
    assert commands.typed(words).startswith(f"{words[0]} -m accelerate.commands.accelerate_cli launch --quiet")
