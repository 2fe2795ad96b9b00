"""Recipes that are only planned, and what their fingerprints say."""

from collections.abc import Callable
from pathlib import Path

from conftest import PAIR_ROWS, SFT_ROWS

from trimtab.pipelines.planning.recipe import Recipe

STAGES = {
    "sft": {"model": {"model_name_or_path": "hub/model"}, "data": "hub/data", "train": {"learning_rate": 1e-5}},
    "dpo": {"model": {"model_name_or_path": "$sft"}, "data": "hub/pairs", "train": {"beta": 0.1}},
    "after": {"kind": "sft", "model": {"model_name_or_path": "$dpo"}, "data": "hub/data", "train": {}},
}


def fingerprints(path: str | Path, *overrides: str) -> dict[str, str]:
    """The fingerprint of every step of a recipe."""
    return {step.name: step.fingerprint for step in Recipe.load(str(path), overrides).steps}


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The names of the steps whose fingerprints differ."""
    return [name for name in before if before[name] != after[name]]


def on_rows(write: Callable[[str, list], str], model: str) -> dict[str, dict]:
    """The stages of a correct recipe on rows and a model that exist."""
    return {
        "sft": {
            "model": {"model_name_or_path": model},
            "data": write("sft.jsonl", SFT_ROWS),
            "train": {"max_length": 64},
        },
        "dpo": {"model": {"model_name_or_path": "$sft"}, "data": write("pairs.jsonl", PAIR_ROWS), "train": {}},
    }
