"""Any recipe shrinks to one with the same steps, by what its classes say; tests/test_recipes.py runs them."""

from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from trimtab.pipelines.data.forms import SCORED
from trimtab.pipelines.planning import kinds
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.planning.references import strings
from trimtab.pipelines.shrinking import recipe as shrinking
from trimtab.pipelines.shrinking.miniature import Miniature

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shrinking, "FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shrunk_recipe_has_the_same_steps_and_nothing_from_outside(path, folder):
    small = Recipe.load(shrinking.shrunk(str(path)))
    assert [step.name for step in small.steps] == [step.name for step in Recipe.load(str(path)).steps]
    assert {step.accelerate for step in small.steps} == {"cpu"}
    for step in small.steps:
        options = {key: value for key, value in step.options.items() if key != "config"}
        named = [value for value in strings(options) if value.count("/") == 1]
        outside = [value for value in named if not value.startswith(("/", ".", "<"))]
        assert not outside, f"{step.name}: {outside}"


def test_a_reward_of_a_constrained_stage_keeps_what_is_its_callers(folder):
    block = {"kind": "remote", "url": "http://host/x", "threshold": 1.5, "on_failure": "abstain"}
    small = Miniature(folder, frozenset()).reward(block)
    assert small == {"kind": "length", "target": 5, "unit": "characters", "threshold": 1.5, "on_failure": "abstain"}


def test_a_reward_model_of_the_recipe_stays_and_one_from_outside_is_tiny(folder):
    miniature = Miniature(folder, frozenset({"helpful"}))
    assert miniature.reward({"kind": "reward_model", "path": "$helpful", "dtype": "bfloat16"}) == {
        "kind": "reward_model",
        "path": "$helpful",
    }
    outside = miniature.reward({"kind": "reward_model", "path": "org/llama-judge", "normalize": True})
    assert outside["path"].startswith(str(folder))
    assert "normalize" not in outside


def test_the_keys_of_another_stage_inside_a_macro_are_shrunk_as_that_stage_says(folder):
    miniature = Miniature(folder, frozenset())
    block = {"curate": {"require": {"right": 1}, "decontaminate": "org/test", "deduplicate": 0.9}}
    changes = kinds.find(kinds.STAGES, "rejection_sampling").small(block, miniature)
    assert (changes["curate.require"], changes["curate.decontaminate"]) == ({}, None)
    assert "curate.deduplicate" not in changes
    limits = {"monitor": {"stop_if": {"distinct_2": 0.5}}}
    assert kinds.find(kinds.STAGES, "apo").small(limits, miniature)["monitor.stop_if"] == {"distinct_2": -1}


def test_nobody_serves_a_shrunk_run(folder):
    miniature = Miniature(folder, frozenset())
    served = {
        "engine": "server",
        "server": {"urls": ["http://host:8000/v1"]},
        "model": {"model_name_or_path": "org/llama"},
    }
    block = {"model": {"model_name_or_path": "org/qwen"}, "corpus": "corpus.jsonl", "teacher": served}
    changes = kinds.find(kinds.STAGES, "preflexor").small(block, miniature)
    assert (changes["teacher.engine"], changes["teacher.server"]) == ("transformers", None)
    assert changes["teacher.model.model_name_or_path"].startswith(str(folder))
    changes = kinds.find(kinds.STAGES, "sample").small({"engine": "ray", "ray": {"workers": 9}, **block}, miniature)
    assert (changes["engine"], changes["ray"]) == ("transformers", None)


@pytest.mark.parametrize(
    ("kind", "block"),
    [
        ("tune_text", {"text": "Answer.", "budget": 900, "minibatch": 5}),
        ("tune_reward", {"reward": {"kind": "judge", "model": "m", "url": "http://host/v1"}, "key": "rubric"}),
    ],
)
def test_a_shrunk_search_for_a_text_has_a_tiny_reflector_here(kind, block, folder):
    miniature = Miniature(folder, frozenset({"sft"}))
    search = kinds.find(kinds.STAGES, kind)
    outside = search.small({**block, "reflector": {"model": "org/model", "url": "http://host/v1"}}, miniature)
    assert outside["reflector"]["model"].startswith(str(folder))
    assert "url" not in outside["reflector"]
    assert outside["budget"] <= 50
    inside = search.small({**block, "reflector": {"model": "$sft"}}, miniature)
    assert inside["reflector"]["model"] == "$sft"
    if kind == "tune_reward":
        assert (outside["reward"]["kind"], outside["key"]) == ("pattern", "regex")


def test_in_a_shrunk_run_nobody_is_asked_who_is_better(folder):
    miniature = Miniature(folder, frozenset())
    small = {kind: kinds.find(kinds.STAGES, kind).small for kind in ("duel", "evaluate", "rank_search")}
    duel = small["duel"]({"people": {"raters": 3}}, miniature)
    assert (duel["people"], duel["rewards"]["people"]["kind"]) == (None, "pattern")
    assert small["evaluate"]({"labels": {}}, miniature)["labels"] is None
    ranked = small["rank_search"]({"oracle": "people"}, miniature)
    assert (ranked["oracle"], ranked["reward"]) == ("rewards", "brief")


def test_rows_that_only_a_stage_makes_are_an_error(folder):
    with pytest.raises(RecipeError, match="makes no rows of scored completions"):
        Miniature(folder, frozenset()).rows(SCORED)


def test_an_unknown_family_says_so(write):
    stage = {"model": {"model_name_or_path": "org/unheard-of-7b"}, "data": "org/data", "train": {}}
    path = write("recipe.yaml", yaml.safe_dump({"stages": {"sft": stage}}))
    with pytest.raises(RecipeError, match="knows no family for the model 'org/unheard-of-7b'"):
        shrinking.shrunk(path)


def test_points_stay_but_for_what_is_shrunk(write):
    stage = {"model": {"model_name_or_path": "org/llama-7b"}, "data": "org/data", "train": {"learning_rate": 1e-5}}
    model = "stages.sft.model.model_name_or_path"
    top = {
        "sweep": {"seed": [1, 2], model: ["org/llama-1b", "org/llama-2b"], "stages.sft.train.learning_rate": [1, 2]},
        "arms": {
            "one": {model: "org/llama-7b"},
            "two": {model: "org/llama-8b"},
            "three": {"stages.sft.train.beta": 1},
        },
    }
    path = write("recipe.yaml", yaml.safe_dump({**top, "stages": {"sft": stage}}))
    shrunk = yaml.safe_load(Path(shrinking.shrunk(path)).read_text())
    assert set(shrunk["sweep"]) == {"seed", "stages.sft.train.learning_rate"}
    assert list(shrunk["arms"]) == ["one", "three"]
