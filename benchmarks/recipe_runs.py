"""Recipes run with other values, and what their steps have left."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401

from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.recording import artifacts
from trimtab.scripts import train


def run(recipe: str | Path, words: Sequence[str]) -> dict[str, Step]:
    """The steps by name, all of them done; exits with 1 where one has failed."""
    if train.main([str(recipe), *words]):
        sys.exit(1)
    return {step.name: step for step in Recipe.load(str(recipe), list(words)).steps}


def metrics(step: Step) -> Mapping[str, Any]:
    """What a step has measured of itself."""
    record = artifacts.read_done(step.dir)
    assert record is not None, f"{step.name} is not done"
    return record["metrics"]


def policies(evaluate: Step) -> dict[str, Any]:
    """What an evaluation says of each policy."""
    return json.loads((evaluate.output / "evaluation.json").read_text())["policies"]
