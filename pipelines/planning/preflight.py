"""Everything that can be known to be wrong before anything is launched."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trimtab.pipelines.planning import kinds, schema
from trimtab.pipelines.planning.commands import accelerate_config
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe, Step


def check(recipe: Recipe, steps: Iterable[Step]) -> None:
    """Keys and types of every step first, then files, columns, rows and tokens. Raises RecipeError; writes nothing."""
    steps = [step for step in steps if not step.done]
    try:
        for step in steps:
            if step.accelerate != "auto":
                accelerate_config(step)
        for step, stage in [(step, build(step)) for step in steps]:
            if not step.stop_reasons:  # what a loop has stopped is not made, and needs no inputs
                stage.check(step)
    except RecipeError as error:
        raise recipe.document.locate(error) from error.__cause__


def require_inputs(steps: Iterable[Step]) -> None:
    """Raises RecipeError when a step refers to one that is neither done nor among those to be run."""
    steps = list(steps)
    for step in steps:
        for source in () if step.done else step.waiting:
            if source not in steps:
                raise RecipeError(f"{step.name} needs {source.name}, which is not done: run {source.name} first")


def build(step: Step) -> Any:
    """The step's stage for its checks: training arguments stay a plain namespace (see schema.build)."""
    return schema.build(kinds.find(kinds.STAGES, step.kind, step.path), step.options, step.path, dry=True)
