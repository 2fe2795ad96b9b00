"""Everything that can be known to be wrong before anything is launched."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trimtab.pipelines.planning import hub, kinds, schema
from trimtab.pipelines.planning.commands import accelerate_config
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.planning.references import strings


def check(recipe: Recipe, steps: Iterable[Step], *, without_hub: bool = False) -> list[RecipeError]:
    """Keys and types of every step first, then files, columns, rows and tokens. Raises RecipeError; writes nothing.

    With `without_hub`, what cannot be looked at because the hub cannot be reached is returned instead.
    """
    steps = [step for step in steps if not step.done]
    hub.prefer_cache(value for step in steps for value in strings(step.options))
    unseen: dict[str, RecipeError] = {}
    try:
        for step in steps:
            if step.accelerate != "auto":
                accelerate_config(step)
        for step, stage in [(step, build(step)) for step in steps]:
            if step.stop_reasons:  # what a loop has stopped is not made, and needs no inputs
                continue
            try:
                stage.check(step)
            except hub.Unreachable as error:
                if not without_hub:
                    raise
                unseen.setdefault(error.message, error)
    except RecipeError as error:
        raise recipe.document.locate(error) from error.__cause__
    return [recipe.document.locate(error) for error in unseen.values()]


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
