"""A recipe of three stages that is only planned, and what its fingerprints say."""

from pathlib import Path

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
