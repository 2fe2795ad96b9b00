"""The plan: references, fingerprints, overrides, macros, origins."""

import subprocess
import sys
from dataclasses import dataclass

import pytest
from conftest import ROOT
from run_steps import write_recipe

from trimtab.pipelines.planning import table
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.stages import Stage

STAGES = {
    "sft": {"model": {"model_name_or_path": "hub/model"}, "data": "hub/data", "train": {"learning_rate": 1e-5}},
    "dpo": {"model": {"model_name_or_path": "$sft"}, "data": "hub/pairs", "train": {"beta": 0.1}},
    "after": {"kind": "sft", "model": {"model_name_or_path": "$dpo"}, "data": "hub/data", "train": {}},
}


def marks(path, *overrides):
    return {step.name: step.fingerprint for step in Recipe.load(str(path), overrides).steps}


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path, STAGES)


def changed(before, after):
    return [name for name in before if before[name] != after[name]]


def test_same_recipe_same_plan_in_another_process(recipe):
    code = (
        "import _checkout; from trimtab.pipelines.planning.recipe import Recipe;"
        f"print([s.fingerprint for s in Recipe.load({str(recipe)!r}).steps])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == str(list(marks(recipe).values()))


def test_planning_imports_no_torch(recipe):
    code = (
        "import sys; import _checkout; from trimtab.pipelines.planning.recipe import Recipe;"
        f"Recipe.load({str(recipe)!r});"
        f"Recipe.load({str(ROOT / 'recipes/tiny.yaml')!r}); print('torch' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "False"


def test_a_change_reaches_the_step_and_those_that_refer_to_it(recipe):
    assert changed(marks(recipe), marks(recipe, "stages.dpo.train.beta=0.2")) == ["dpo", "after"]
    assert changed(marks(recipe), marks(recipe, "seed=7")) == ["sft", "dpo", "after"]
    assert changed(marks(recipe), marks(recipe, "stages.after.seed=7")) == ["after"]


@pytest.mark.parametrize(
    "override",
    [
        "stages.dpo.train.logging_steps=1",
        "stages.dpo.train.save_steps=7",
        "stages.dpo.train.report_to=wandb",
        "stages.dpo.accelerate=ddp",
        "output_dir=elsewhere",
        "wandb.project=other",
    ],
)
def test_what_cannot_change_the_result_is_not_in_the_fingerprint(recipe, override):
    assert marks(recipe, override) == marks(recipe)


def test_saving_counts_when_the_best_checkpoint_is_kept(recipe):
    best = "stages.dpo.train.load_best_model_at_end=true"
    assert changed(marks(recipe, best), marks(recipe, best, "stages.dpo.train.save_steps=7")) == ["dpo", "after"]


def test_local_files_count_by_content_not_by_place(tmp_path, write):
    one, two = write("one.jsonl", "a"), write("two.jsonl", "a")
    recipe = write_recipe(tmp_path, STAGES)
    first = marks(recipe, f"stages.sft.data={one}")
    assert first == marks(recipe, f"stages.sft.data={two}")
    write("two.jsonl", "b")
    assert changed(first, marks(recipe, f"stages.sft.data={two}")) == ["sft", "dpo", "after"]


def test_inputs_are_names_for_things_from_outside(tmp_path, write):
    file = write("rows.jsonl", "a")
    recipe = write_recipe(tmp_path, {"sft": {**STAGES["sft"], "data": "$rows"}}, inputs={"rows": file})
    assert marks(recipe) == marks(write_recipe(tmp_path, {"sft": {**STAGES["sft"], "data": file}}))
    assert Recipe.load(str(recipe)).steps[0].options["data"] == file


def test_references_become_paths_and_may_name_a_folder(tmp_path):
    stages = {"world": {}, "scratch": {"corpus": "$world/sft"}}
    world, scratch = Recipe.load(str(write_recipe(tmp_path, stages))).steps
    assert scratch.options["corpus"] == f"{world.output}/sft"
    assert scratch.inputs == (world,)
    assert scratch.waiting == (world,)
    assert scratch.pending(f"{world.output}/sft")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"a": {"kind": "dpo", "model": {"model_name_or_path": "$b"}}, "b": {"kind": "sft"}}, "'$b' is below"),
        ({"a": {"kind": "dpo", "model": {"model_name_or_path": "$a"}}}, "refers to the stage itself"),
        ({"a": {"kind": "dpo", "model": {"model_name_or_path": "$ab"}}}, "no stage or input 'ab' above"),
        ({"a": {"kind": "dpoo"}}, "unknown kind 'dpoo', did you mean 'dpo'?"),
        ({"a b": {"kind": "dpo"}}, "not a stage name"),
        ({"a": {"kind": "no.such.module"}}, "unknown kind"),
        ({}, "at least one stage"),
    ],
)
def test_bad_references_and_kinds(tmp_path, stages, message):
    with pytest.raises(RecipeError, match=r"recipe.yaml:\d+: ") as error:
        Recipe.load(str(write_recipe(tmp_path, stages)))
    assert message in str(error.value)


def test_overrides_are_checked(recipe):
    with pytest.raises(RecipeError, match="no stage 'dop', did you mean 'dpo'"):
        Recipe.load(str(recipe), ["stages.dop.train.beta=1"])
    with pytest.raises(RecipeError, match=r"expected a\.b\.c=value"):
        Recipe.load(str(recipe), ["beta"])
    with pytest.raises(RecipeError, match="unknown key for a recipe, did you mean 'stages'"):
        Recipe.load(str(recipe), ["stage.dpo.train.beta=1"])


def test_numbers_in_scientific_notation_are_numbers(recipe):
    steps = Recipe.load(str(recipe), ["stages.dpo.train.learning_rate=5e-7"]).steps
    assert steps[1].options["train"]["learning_rate"] == 5e-7


def test_defaults_go_under_blocks_that_exist_and_lose_to_the_stage(tmp_path):
    recipe = write_recipe(
        tmp_path, STAGES, defaults={"train": {"learning_rate": 3.0, "max_steps": 2}, "batch_size": 8}
    )
    sft, dpo, _ = Recipe.load(str(recipe)).steps
    assert sft.options["train"] == {"learning_rate": 1e-5, "max_steps": 2}
    assert dpo.options["train"] == {"beta": 0.1, "learning_rate": 3.0, "max_steps": 2}
    assert "batch_size" not in sft.options


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


def test_select_by_stage_and_from(recipe):
    loaded = Recipe.load(str(recipe))
    assert [s.name for s in loaded.select(only="dpo")] == ["dpo"]
    assert [s.name for s in loaded.select(start="dpo")] == ["dpo", "after"]
    with pytest.raises(RecipeError, match="did you mean 'dpo'"):
        loaded.select(only="dpoo")


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


def test_a_reward_is_known_by_its_source(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def score(prompts, completions, **columns): return [0.0] * len(prompts)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    stages = {"score": {"completions": "hub/data", "rewards": {"a": {"kind": "mine.score"}}}}
    recipe = write_recipe(tmp_path, stages)
    before = marks(recipe)
    (tmp_path / "mine.py").write_text("def score(prompts, completions, **columns): return [1.0] * len(prompts)\n")
    assert changed(before, marks(recipe)) == ["score"]


def test_a_default_written_out_is_the_same_step(recipe):
    assert marks(recipe, "stages.sft.eval_data=null") == marks(recipe)


def test_yaml_mistakes_name_the_line(write):
    with pytest.raises(RecipeError, match=r"recipe.yaml:3: key 'sft' is given twice"):
        Recipe.load(write("recipe.yaml", "stages:\n  sft: {}\n  sft: {}\n"))
    with pytest.raises(RecipeError, match="not readable as YAML"):
        Recipe.load(write("recipe.yaml", "stages: [\n"))
    with pytest.raises(RecipeError, match="no such recipe"):
        Recipe.load("recipes/tinny.yaml")


def test_anchors_and_merge_keys(write):
    text = "stages:\n  a: &a {kind: sft, model: {model_name_or_path: x}, data: d, train: {}}\n  b: {<<: *a, data: e}\n"
    a, b = Recipe.load(write("recipe.yaml", text)).steps
    assert a.options["data"] == "d"
    assert b.options["data"] == "e"
    assert b.options["model"] == a.options["model"]
