"""A recipe's folder shows its steps under their names, and says what recipe it is a view for."""

import json
import os

import pytest
from planned import STAGES
from run_steps import write_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import views


@pytest.fixture
def recipe(tmp_path):
    """A plan whose first step has a folder."""
    recipe = Recipe.load(str(write_recipe(tmp_path, STAGES)))
    recipe.steps[0].dir.mkdir(parents=True)
    return recipe


def test_a_view_links_what_is_there_and_knows_its_recipe(recipe):
    views.record(recipe)
    assert os.readlink(recipe.run / "sft") == f"../steps/{recipe.steps[0].dir.name}"
    assert not os.path.lexists(recipe.run / "dpo")
    (plan,) = views.plans(recipe.run)
    assert plan["path"] == recipe.path
    assert plan["steps"]["dpo"] == f"steps/{recipe.steps[1].dir.name}"


def test_plans_of_other_overrides_are_kept_and_an_edit_replaces_its_own(recipe):
    for words in ((), ("stages.dpo.train.beta=0.2",), ()):
        views.record(Recipe.load(recipe.path, words))
    assert [plan["overrides"] for plan in views.plans(recipe.run)] == [["stages.dpo.train.beta=0.2"], []]


def test_what_is_as_it_was_is_not_written_again(recipe):
    views.record(recipe)
    before = (recipe.run / views.VIEW).stat().st_mtime_ns
    views.record(recipe)
    assert (recipe.run / views.VIEW).stat().st_mtime_ns == before


@pytest.mark.parametrize("in_the_way", ["file", "folder"])
def test_a_link_takes_no_place_of_a_persons(recipe, in_the_way, caplog):
    recipe.run.mkdir()
    place = recipe.run / "sft"
    place.write_text("mine") if in_the_way == "file" else place.mkdir()
    views.record(recipe)
    assert not place.is_symlink()
    assert "is left alone" in caplog.text


def test_a_link_is_pointed_at_the_newest(recipe):
    recipe.run.mkdir()
    (recipe.run / f".sft.{os.getpid()}").symlink_to("left by a process that died")
    (recipe.run / "sft").symlink_to("sft-00000000")
    views.record(recipe)
    assert (recipe.run / "sft").resolve() == recipe.steps[0].dir


def test_a_view_that_cannot_be_read_shows_nothing(recipe):
    recipe.run.mkdir()
    for text in ("", "[]", json.dumps({"plan": []})):
        (recipe.run / views.VIEW).write_text(text)
        assert views.plans(recipe.run) == []
