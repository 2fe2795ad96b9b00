"""The plan as text."""

from planned import STAGES
from run_steps import write_recipe

from trimtab.pipelines.planning import commands, table
from trimtab.pipelines.planning.recipe import Recipe


def test_verbose_plan_tells_where_each_value_came_from(tmp_path):
    recipe = write_recipe(tmp_path, STAGES, defaults={"train": {"max_steps": 2}})
    loaded = Recipe.load(str(recipe), ["stages.dpo.train.beta=0.2"])
    rows = {key: (value, origin) for key, value, origin in table.resolved(loaded, loaded.steps[1])}
    assert rows["train.beta"] == (0.2, "override stages.dpo.train.beta=0.2")
    assert rows["train.max_steps"] == (2, "defaults")
    assert rows["model.model_name_or_path"][1].startswith("recipe line ")
    assert rows["data.datasets"][1].startswith("recipe line ")
    assert rows["train.label_smoothing"] == (0.0, "default of DPOConfig")
    assert "train.output_dir" not in rows


def test_a_plan_has_a_line_for_each_step_and_says_once_how_one_is_launched(tmp_path):
    recipe = Recipe.load(str(write_recipe(tmp_path, STAGES)), ["seed=7"])
    headings, *lines, summary, launch = table.table(recipe, recipe.steps, auto="cpu").splitlines()
    assert headings.split() == ["step", "kind", "fingerprint", "state", "batch"]
    for step, line in zip(recipe.steps, lines, strict=True):
        assert line.split() == [step.name, step.kind, step.fingerprint, "pending", "8", "=", "8", "x", "1", "x", "1"]
        assert commands.typed(commands.command(recipe, step, auto="cpu")) == launch.removeprefix(
            "each by itself: "
        ).replace("STEP", step.name)
    assert launch.endswith(f"{recipe.path} seed=7 --stage STEP")
    assert summary == f"3 steps, 0 done, 3 pending, in {recipe.run}"


def test_steps_that_are_launched_in_different_ways_are_named(tmp_path):
    stages = {**STAGES, "dpo": {**STAGES["dpo"], "accelerate": "ddp"}}
    recipe = Recipe.load(str(write_recipe(tmp_path, stages)))
    *_, first, second = table.table(recipe, recipe.steps, auto="cpu").splitlines()
    names = [step.name for step in recipe.steps if step.name != "dpo"]
    assert first.startswith(f"{', '.join(names)} by itself: ")
    assert "cpu.yaml" in first
    assert second.startswith("dpo by itself: ")
    assert "ddp.yaml" in second
    assert second.endswith("--stage dpo")


def test_a_step_may_be_called_as_a_state_is(tmp_path):
    recipe = Recipe.load(str(write_recipe(tmp_path, {"done": {**STAGES["sft"], "kind": "sft"}})))
    assert table.table(recipe, recipe.steps, auto="cpu").splitlines()[1].split()[:4] == [
        "done", "sft", recipe.steps[0].fingerprint, "pending",
    ]  # fmt: skip
