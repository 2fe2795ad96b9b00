"""Stages become steps: kinds, defaults and macros."""

from dataclasses import dataclass

import pytest
from planned import STAGES
from run_steps import write_recipe

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.planning.table import table
from trimtab.pipelines.stages import Stage


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"a": {"kind": "dpoo"}}, "unknown kind 'dpoo', did you mean 'dpo'?"),
        ({"a b": {"kind": "dpo"}}, "not a stage name"),
        ({"a": {"kind": "no.such.module"}}, "unknown kind"),
        ({"a": {"kind": "dpo", "dat": "x"}}, "stages.a.dat: unknown key for kind 'dpo', did you mean 'data'?"),
        ({"a": {"kind": "dpo", "seed": "x"}}, "stages.a.seed: expected a whole number, got 'x'"),
        ({}, "at least one stage"),
    ],
)
def test_a_stage_that_is_no_stage_is_an_error_with_its_line(stages, message, tmp_path):
    with pytest.raises(RecipeError, match=r"recipe.yaml:\d+: ") as raised:
        Recipe.load(str(write_recipe(tmp_path, stages)))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ({"wandb": {"projekt": "x"}}, "wandb.projekt: unknown key, did you mean 'project'?"),
        ({"seed": "x"}, "seed: expected a whole number, got 'x'"),
        ({"name": "a/b"}, "name: 'a/b' is not a name"),
        ({"default": {}}, "default: unknown key for a recipe, did you mean 'defaults'?"),
    ],
)
def test_the_recipes_own_keys_are_checked(top, message, tmp_path):
    with pytest.raises(RecipeError) as raised:
        Recipe.load(str(write_recipe(tmp_path, STAGES, **top)))
    assert message in str(raised.value)


def test_defaults_go_under_blocks_that_exist_and_lose_to_the_stage(tmp_path):
    recipe = write_recipe(tmp_path, STAGES, defaults={"train": {"learning_rate": 3.0, "max_steps": 2}, "rounds": 8})
    sft, dpo, _ = Recipe.load(str(recipe)).steps
    assert sft.options["train"] == {"learning_rate": 1e-5, "max_steps": 2}
    assert dpo.options["train"] == {"beta": 0.1, "learning_rate": 3.0, "max_steps": 2}
    assert "rounds" not in sft.options


GRPO = {"kind": "constrained", "method": "fixed", "model": {"model_name_or_path": "$sft"}, "data": "hub/prompts",
        "rewards": {"length": {"kind": "length", "target": 20}}, "train": {}}  # fmt: skip


def test_a_default_that_does_not_fit_a_stage_is_skipped_there_and_shown(tmp_path, capsys):
    stages = {"sft": STAGES["sft"], "online": GRPO}
    path = str(write_recipe(tmp_path, stages, defaults={"train": {"max_length": 64, "max_steps": 2}}))
    loaded = Recipe.load(path)
    sft, online = loaded.steps
    assert sft.options["train"]["max_length"] == 64
    assert online.options["train"] == {"max_steps": 2}
    assert "defaults.train.max_length is no key of online: skipped there" in table(loaded, loaded.steps)


def test_a_default_that_fits_no_stage_is_a_mistake(tmp_path):
    stages = {"sft": STAGES["sft"], "online": GRPO}
    with pytest.raises(RecipeError) as raised:
        Recipe.load(str(write_recipe(tmp_path, stages, defaults={"train": {"learning_rat": 1e-3}})))
    message = "defaults.train.learning_rat: no stage has such a key in `train`, did you mean 'learning_rate'?"
    assert message in str(raised.value)


@dataclass(kw_only=True)
class Rounds(Stage):
    """A macro for the test below."""

    rounds: int
    model: str

    @classmethod
    def expand(cls, name, kind, options, above):
        policy = options["model"]
        for n in range(options["rounds"]):
            yield f"{name}-{n}", "sft", {"model": {"model_name_or_path": policy}, "data": "hub/data", "train": {}}
            policy = f"${name}-{n}"


def test_a_macro_is_several_steps_and_its_name_means_the_last(tmp_path):
    stages = {
        "loop": {"kind": f"{__name__}.Rounds", "rounds": 2, "model": "hub/model"},
        "end": {"kind": "sft", "model": {"model_name_or_path": "$loop"}, "data": "hub/data", "train": {}},
    }
    first, second, end = Recipe.load(str(write_recipe(tmp_path, stages))).steps
    assert [first.name, second.name] == ["loop-0", "loop-1"]
    assert second.inputs == (first,)
    assert end.inputs == (second,)
    assert {step.stage for step in (first, second)} == {"loop"}


def test_two_steps_of_one_name_are_an_error(tmp_path):
    rounds = {"kind": f"{__name__}.Rounds", "rounds": 1, "model": "hub/model"}
    stages = {"loop-0": {"kind": "sft", **STAGES["sft"]}, "loop": rounds}
    with pytest.raises(RecipeError, match="two steps are called 'loop-0': rename the stage"):
        Recipe.load(str(write_recipe(tmp_path, stages)))
