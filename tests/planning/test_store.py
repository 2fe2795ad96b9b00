"""A step has one folder for all recipes, whatever they and it are called."""

import json
import shutil

import pytest
from planned import STAGES, fingerprints
from run_steps import write_recipe

from trimtab.pipelines.planning import store
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.planning.table import table


def renamed():
    """The stages under other names."""
    text = json.dumps({f"my-{name}": {"kind": name, **block} for name, block in STAGES.items()})
    return json.loads(text.replace("$", "$my-"))


def test_neither_the_name_of_a_recipe_nor_of_a_stage_is_in_the_folder_or_the_fingerprint(tmp_path):
    first = Recipe.load(str(write_recipe(tmp_path, STAGES))).steps
    others = Recipe.load(str(write_recipe(tmp_path, renamed(), name="other"))).steps
    assert [step.dir for step in others] == [step.dir for step in first]
    assert [step.fingerprint for step in others] == [step.fingerprint for step in first]
    assert first[0].dir == tmp_path / "runs" / "steps" / f"sft-{first[0].key}"
    assert len(first[0].key) == 16
    assert first[0].key.startswith(first[0].fingerprint)


def test_a_key_tells_inputs_apart_whose_fingerprints_are_the_same(monkeypatch, tmp_path):
    keys = {store.key({"seed": 1}, above) for above in ((), ("0" * 16,), ("0" * 8 + "1" * 8,))}
    assert len(keys) == 3
    assert len({key[:8] for key in keys}) == 1


def finished_in(folder, step, recipe="old", name="sft"):
    """A finished step in a folder."""
    (folder / "output").mkdir(parents=True)
    record = {"fingerprint": step.fingerprint, "recipe": recipe, "step": name, "files": {}}
    (folder / "done.json").write_text(json.dumps(record))


def test_a_step_in_an_older_folder_of_any_recipe_is_done_and_the_plan_says_where(tmp_path):
    path = str(write_recipe(tmp_path, STAGES))
    step = Recipe.load(path).steps[0]
    older = tmp_path / "runs" / "old" / f"first-{step.fingerprint}"
    finished_in(older, step, name="first")
    (older.parent / "first").symlink_to(older.name)
    unfinished = tmp_path / "runs" / "test" / f"sft-{step.fingerprint}"
    unfinished.mkdir(parents=True)
    recipe = Recipe.load(path)
    assert recipe.steps[0].done
    assert recipe.steps[0].dir == older
    assert fingerprints(path) == {step.name: step.fingerprint for step in recipe.steps}
    assert f"as old/first in {older}" in table(recipe, recipe.steps)
    shutil.rmtree(older)
    assert Recipe.load(path).steps[0].dir == unfinished  # an interrupted one goes on where it is


def test_the_plan_says_which_recipe_has_made_a_step(tmp_path):
    recipe = Recipe.load(str(write_recipe(tmp_path, STAGES)))
    finished_in(recipe.steps[0].dir, recipe.steps[0], recipe="other", name="start")
    (line,) = [line for line in table(recipe, recipe.steps).splitlines() if line.startswith("sft ")]
    assert line.split()[3] == "done"
    assert line.endswith("  as other/start")


def test_no_recipe_is_called_as_the_store(tmp_path):
    with pytest.raises(RecipeError, match=r"recipe.yaml:1: name: 'steps' is where the steps of all recipes lie"):
        Recipe.load(str(write_recipe(tmp_path, STAGES, name="steps")))
