"""A recipe with points is one plan: the grid and the arms expand, shared steps are one, and mistakes have a place."""

import pytest
import yaml
from planned import STAGES

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.planning.table import table

BETAS = {"stages.dpo.train.beta": [0.05, 0.1, 0.2]}
RATES = {"stages.sft.train.learning_rate": [1e-5, 2e-5]}


@pytest.fixture
def plan(write):
    def plan(*overrides, **top):
        path = write("r.yaml", yaml.safe_dump({"name": "r", **top, "stages": STAGES}, sort_keys=False))
        return Recipe.load(path, overrides)

    return plan


def names(recipe):
    return [step.name for step in recipe.steps]


def test_a_step_is_made_once_for_all_points_that_share_it(plan):
    recipe = plan(sweep=BETAS)
    assert names(recipe) == ["sft", *(f"{name}@beta={beta}" for name in ("dpo", "after") for beta in (0.05, 0.1, 0.2))]
    assert {len(point.steps) for point in recipe.points} == {3}
    assert len({point.steps["sft"].key for point in recipe.points}) == 1
    for point in recipe.points:
        alone = plan(f"stages.dpo.train.beta={point.values['stages.dpo.train.beta']}").steps
        assert [step.key for step in point.steps.values()] == [step.key for step in alone]
        assert [source.name for source in point.steps["after"].inputs] == [f"dpo@{point.label}"]


def test_a_grid_names_each_step_by_the_values_that_it_depends_on(plan):
    recipe = plan(sweep={**BETAS, "seed": [1, 2, 3], **RATES})
    assert len(recipe.points) == 18
    assert len(recipe.steps) == 6 + 18 + 18
    assert names(recipe)[:2] == ["sft@seed=1,learning_rate=1e-05", "sft@seed=1,learning_rate=2e-05"]
    assert recipe.points[0].setting == "beta=0.05,learning_rate=1e-05"
    assert recipe.points[0].seeds == "seed=1"
    step = recipe.points[-1].steps["sft"]
    assert step.varied == {"seed": 3, "stages.sft.train.learning_rate": 2e-5}
    assert (step.written, step.view.name) == ("sft", step.name)


def test_arms_are_named_sets_of_values_and_have_the_whole_grid(plan):
    arms = {"plain": None, "strong": {"stages.dpo.train.beta": 0.5, "stages.dpo.train.loss_type": ["ipo"]}}
    recipe = plan(arms=arms, sweep={"seed": [1, 2]})
    assert [point.label for point in recipe.points] == [
        "plain,seed=1",
        "plain,seed=2",
        "strong,seed=1",
        "strong,seed=2",
    ]
    assert names(recipe)[:3] == ["sft@seed=1", "sft@seed=2", "dpo@plain,seed=1"]
    assert recipe.points[2].steps["dpo"].options["train"] == {"beta": 0.5, "loss_type": ["ipo"]}


def test_steps_stand_stage_by_stage_and_are_chosen_by_stage_or_name(plan):
    recipe = plan(sweep=BETAS)
    assert len(recipe.select("dpo")) == 3
    assert names(recipe)[4:] == [step.name for step in recipe.select(start="after")]
    assert [step.name for step in recipe.select("dpo@beta=0.1")] == ["dpo@beta=0.1"]


def test_the_command_line_wins_over_points(plan):
    sweep = {**BETAS, "seed": [1, 2]}
    assert names(plan("seed=4", sweep=sweep))[:2] == ["sft", "dpo@beta=0.05"]
    assert names(plan("seed=4", "stages.dpo.train.beta=0.2", sweep=sweep)) == ["sft", "dpo", "after"]
    assert names(plan("sweep=null", sweep=sweep)) == ["sft", "dpo", "after"]
    assert len(plan("sweep.seed=[7]", sweep=sweep).points) == 3
    assert len(plan("sweep.stages.sft.train.learning_rate=[1e-5, 2e-5]", sweep=sweep).points) == 12
    arm = plan("arms.b.stages.dpo.train.beta=0.3", arms={"a": {}}).points[1]
    assert arm.values == {"stages.dpo.train.beta": 0.3}


def test_blocks_are_swept_by_number_and_long_labels_are_cut(plan):
    models = [{"model_name_or_path": "org/a"}, {"model_name_or_path": "org/b"}]
    recipe = plan(sweep={"stages.sft.model": models})
    assert [point.label for point in recipe.points] == ["model=1", "model=2"]
    wide = {
        f"stages.dpo.train.{key}": [0.123456789] for key in ("beta", "learning_rate", "weight_decay", "max_grad_norm")
    }
    label = plan(sweep=wide | {"stages.dpo.train.adam_epsilon": [1e-8, 1e-7]}).points[0].label
    assert len(label) < 120


def test_the_plan_says_what_points_share(plan):
    recipe = plan(sweep=BETAS)
    text = table(recipe, recipe.steps)
    assert "point beta=0.1: 3 steps, 0 done" in text
    assert text.endswith("3 points have 9 steps; 7 of them differ, and run once")


def refused(plan, *overrides, **top):
    with pytest.raises(RecipeError) as error:
        plan(*overrides, **top)
    return str(error.value)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"seed": 3}, "sweep.seed: expected a list of values, such as [1, 2, 3], got 3"),
        ({"seed": []}, "sweep.seed: expected a list of values, such as [1, 2, 3], got []"),
        ({"seed": [1, 1]}, "sweep.seed: 1 is given twice: leave one out"),
        ({"sed": [1]}, "sweep.sed: is no path of a value, did you mean 'seed'?"),
        ({"stages.dop.train.beta": [1]}, "sweep.stages.dop.train.beta: no stage 'dop', did you mean 'dpo'?"),
        ({"stages.dpo": [{}]}, "sweep.stages.dpo: names no single value: write the whole path"),
        ({"seed": [1, "x"]}, "seed: expected a whole number, got 'x'"),
        ({"stages.dpo.datum": ["x"]}, "stages.dpo.datum: unknown key for kind 'dpo', did you mean 'data'?"),
        ({"stages.dpo.train.logging_steps": [1, 2]}, "logging_steps=1 and logging_steps=2 come to the same steps"),
        ({"seed": list(range(1001))}, "sweep.seed: 1001 points are more than the 1000 that one recipe can have"),
        ([1], "sweep: expected a mapping of paths to lists, got [1]"),
    ],
)
def test_mistakes_of_a_sweep_have_a_place_and_a_cure(plan, sweep, message):
    text = refused(plan, sweep=sweep)
    assert message in text
    assert "/r.yaml:" in text


def test_mistakes_of_arms_have_a_place_and_a_cure(plan):
    assert "arms: a and b come to the same steps" in refused(plan, arms={"a": {}, "b": {"stages.dpo.train.beta": 0.1}})
    assert "arms.a: expected a mapping of paths to values" in refused(plan, arms={"a": [1]})
    assert "arms.a.stages.dop.x: no stage 'dop'" in refused(plan, arms={"a": {"stages.dop.x": 1}})
    assert "'a b' is not a name" in refused(plan, arms={"a b": {}})
    assert "arms: expected a mapping of names" in refused(plan, arms=[1])
    on_command_line = refused(plan, "sweep.seed=[1, x]")
    assert on_command_line == "override sweep.seed=[1, x]: seed: expected a whole number, got 'x'"
