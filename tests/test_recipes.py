"""Every recipe and accelerate config that we ship."""

import pytest
import yaml
from conftest import ROOT

from trimtab.pipelines.algorithms import surface
from trimtab.pipelines.planning import preflight, table
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import runner
from trimtab.pipelines.shrinking import recipe as shrinking

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
BENCHMARKED = sorted((ROOT / "benchmarks").rglob("*.yaml"))
# tiny is launched whole by others: by one rank, two ranks, and from a wheel
SHRUNK = [path for path in RECIPES if path.stem != "tiny"]
FEWER = {  # two rounds show what more of them do
    "stories-curated": ["stages.curated.rounds=2"],
    "tiny-curated": ["stages.curated.rounds=2"],
}
CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_plans_and_its_keys_and_types_are_right(path):
    recipe = Recipe.load(str(path))
    for step in recipe.steps:
        preflight.build(step)
    printed = table.table(recipe, recipe.steps, verbose=True)
    assert all(step.fingerprint in printed for step in recipe.steps)


@pytest.mark.parametrize("path", BENCHMARKED, ids=lambda path: path.stem)
def test_the_benchmarks_recipe_plans_and_its_keys_and_types_are_right(path):
    for step in Recipe.load(str(path)).steps:
        preflight.build(step)


@pytest.mark.slow
@pytest.mark.parametrize("path", SHRUNK, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_recipe_runs_shrunk(path, tmp_path, monkeypatch):
    """Every stage of a recipe for two steps, on tiny random models of the same architectures."""
    monkeypatch.setattr(shrinking, "FOLDER", tmp_path)
    monkeypatch.setattr(surface, "GRID", 12)  # in the place of 60, whose covariance takes ten seconds
    overrides = FEWER.get(path.stem, [])
    made = shrinking.shrunk(str(path), overrides)
    assert runner.train(made) == 0
    recipe = Recipe.load(made)
    original = Recipe.load(str(path), overrides)
    assert [step.name for step in recipe.steps] == [step.name for step in original.steps]
    assert all(step.done for step in recipe.steps)
    assert str(recipe.run).startswith(str(tmp_path))


def test_shrinking_an_unknown_family_says_so(write, monkeypatch, tmp_path):
    monkeypatch.setattr(shrinking, "FOLDER", tmp_path)
    stage = {"model": {"model_name_or_path": "org/unheard-of-7b"}, "data": "org/data", "train": {}}
    path = write("recipe.yaml", yaml.safe_dump({"stages": {"sft": stage}}))
    with pytest.raises(RecipeError, match="knows no family for the model 'org/unheard-of-7b'"):
        shrinking.shrunk(path)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_config_is_one_that_accelerate_reads(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert str(config.compute_environment).endswith("LOCAL_MACHINE")
    assert path.read_text().startswith("# "), "say what it is for"
    assert yaml.safe_load(path.read_text())["mixed_precision"] == "no"  # the training arguments decide


def test_the_embedded_recipe_needs_no_hub():
    text = (ROOT / "recipes" / "tiny.yaml").read_text()
    recipe = Recipe.load(str(ROOT / "recipes" / "tiny.yaml"))
    assert not recipe.steps[0].inputs
    assert "huggingface" not in text


def test_changing_dpos_beta_makes_dpo_and_what_follows_pending():
    path = str(ROOT / "recipes" / "tiny.yaml")
    before = {step.name: step.fingerprint for step in Recipe.load(path).steps}
    after = {step.name: step.fingerprint for step in Recipe.load(path, ["stages.dpo.train.beta=0.77"]).steps}
    kept = {name for name in before if before[name] == after[name]}
    assert {"world", "scratch", "sft", "coverage", "politeness", "evaluate-sft-sample"} <= kept
    assert kept.isdisjoint({"dpo", "sample", "score", "pair", "evaluate-dpo-sample", "evaluate", "report"})
