"""Editors know the keys of every kind: the shipped schema is that of the code, and takes what the planner takes."""

import json

import pytest
import yaml
from conftest import ROOT

from trimtab.pipelines.planning import kinds
from trimtab.scripts import schema

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft7Validator(json.loads(schema.SHIPPED.read_text()))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_right_and_names_it(path, validator):
    validator.validate(yaml.safe_load(path.read_text()))
    first = path.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == schema.SHIPPED.resolve()


@pytest.mark.parametrize(
    "stages",
    [
        {"sft": {"model": {"model_name_or_path": "org/m"}, "data": "org/d", "train": {"learning_rat": 1}}},
        {"mine": {"kind": "dpo", "model": {"model_name_or_path": "org/m"}, "data": "org/d", "train": {"beta": []}}},
        {"mine": {"kind": "dqo"}},
        {"dpo": {"model": {"model_name_or_path": "org/m"}, "train": {}}},
        {"score": {"completions": "$x", "rewards": {"a": {"kind": "length", "targt": 3}}}},
    ],
)
def test_a_mistake_is_seen(stages, validator):
    assert not validator.is_valid({"stages": stages})


def test_references_words_and_dotted_kinds_are_taken(validator):
    model = {"model_name_or_path": "$base"}
    stages = {
        "sft": {
            "model": model,
            "data": ["$a", "$b/folder"],
            "train": {"learning_rate": "5e-7", "max_steps": "$a.steps"},
        },
        "own": {"kind": "my_stages.Mine", "anything": 1},
        "dpo": {"model": model, "data": {"path": "x.jsonl", "layout": "sharegpt"}, "train": {"loss_type": "ipo"}},
    }
    validator.validate({"stages": stages})


def test_every_kind_is_in_it():
    text = schema.SHIPPED.read_text()
    for package, name in ((kinds.STAGES, "stage"), (kinds.REWARDS, "reward"), (kinds.LAYOUTS, "layout")):
        assert all(f'"{name}-{word}": {{' in text for word in kinds.words(package))
