"""The command that launches a step, and the accelerate configuration that it names."""

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


def test_the_command_can_be_typed_from_the_current_folder(recipe, monkeypatch, tmp_path):
    words = ["accelerate", "launch", "--quiet", "--config_file"]
    monkeypatch.chdir(ROOT)
    typed = commands.command(recipe, recipe.steps[1], ["--num_processes", "2"], "cpu")
    assert typed == [
        *words,
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
