"""Everything that can be known to be wrong before anything is launched."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import (
    adapters,
    ahead,
    commands,
    consent,
    hub,
    kinds,
    provenance,
    schema,
    tracebacks,
)
from trimtab.pipelines.planning.errors import Mistakes, RecipeError
from trimtab.pipelines.planning.recipe import Launch, Recipe, Step
from trimtab.pipelines.planning.references import strings


def check(
    recipe: Recipe,
    steps: Iterable[Step],
    *,
    without_hub: bool = False,
    launch: Callable[[Step], Launch | None] = commands.launch,
) -> list[RecipeError]:
    """Keys and types of every step first, then files, columns, rows and tokens. Raises RecipeError; writes nothing.

    With `without_hub`, what cannot be looked at because the hub cannot be reached is returned instead. `launch` says
    what a step will be launched on, or None where that is not known here.
    """
    steps = [step for step in steps if not step.done]
    hub.prefer_cache(value for step in steps for value in strings(step.options))
    try:
        if steps:
            _require_writable(recipe.run)
        return [recipe.document.locate(error) for error in _unseen(recipe, steps, without_hub, launch)]
    except RecipeError as error:
        raise recipe.document.locate(error) from error.__cause__


def check_readers(
    recipe: Recipe, made: Iterable[Step], steps: Iterable[Step], launch: Callable[[Step], Launch | None]
) -> None:
    """Looks again at those of the steps that read what has been made by now, before others take their hours.

    Of inputs that have still to be made nothing is known yet. Raises RecipeError.
    """
    folders = {step.dir for step in made}
    readers = [step for step in steps if folders.intersection(source.dir for source in step.inputs) and not step.done]
    mistakes = Mistakes()
    for step in filter(is_open, readers):
        with mistakes.collected():
            _check_inputs(recipe, step, build(step), launch)
    mistakes.raise_any()


def look(steps: Iterable[Step], mistakes: Mistakes) -> None:
    """Adds what is wrong with keys and types, without an import of torch; where anything is, with columns too.

    So a misspelt key costs little, and is told of together with the rest.
    """
    steps = [step for step in steps if not kinds.is_withheld(kinds.STAGES, step.kind)]
    for step in steps:
        cls = kinds.find(kinds.STAGES, step.kind, step.path)
        with mistakes.collected():
            schema.check(cls, step.options, step.path)
        with mistakes.collected():
            if step.accelerate != "auto":
                commands.accelerate_config(step)
    for step in filter(is_open, steps if mistakes.kept else ()):
        cls = kinds.find(kinds.STAGES, step.kind, step.path)
        with mistakes.collected():
            schema.sketch(cls, step.options, step.path).check_columns(step)


def _require_writable(folder: Path) -> None:
    """Raises RecipeError where a run could not write its folder."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not os.access(there, os.W_OK):
        raise RecipeError(f"nothing can be written in {there}: give another `output_dir`", ("output_dir",))


def require_inputs(steps: Iterable[Step]) -> None:
    """Raises RecipeError when a step refers to one that is neither done nor among those to be run."""
    steps = list(steps)
    for step in steps:
        for source in () if step.done else step.waiting:
            if source not in steps:
                raise RecipeError(f"{step.name} needs {source.name}, which is not done: run {source.name} first")


def _unseen(
    recipe: Recipe, steps: list[Step], without_hub: bool, launch: Callable[[Step], Launch | None]
) -> list[RecipeError]:
    """What the hub alone knows, `without_hub`; each phase of the look raises RecipeError for all that it finds."""
    mistakes = Mistakes()
    look(steps, mistakes)
    mistakes.raise_any()
    stages = []
    for step in filter(is_open, steps):
        with mistakes.collected():
            stages.append((step, build(step)))
    mistakes.raise_any()
    of_makers = ahead.Ahead({step.dir: stage for step, stage in stages})
    for step, stage in stages:
        with mistakes.collected():
            of_makers.check(step)
        with mistakes.collected():
            _check_inputs(recipe, step, stage, launch)
    unseen = {error.message: error for error in mistakes.kept if without_hub and isinstance(error, hub.Unreachable)}
    mistakes.kept = [error for error in mistakes.kept if error.message not in unseen]
    mistakes.raise_any()
    return list(unseen.values())


def _check_inputs(recipe: Recipe, step: Step, stage: Any, launch: Callable[[Step], Launch | None]) -> None:
    if step.stop_reasons:  # what a loop has stopped is not made, and needs no inputs
        return
    with provenance.explained(recipe, step), tracebacks.mistakes_of(step.path):
        adapters.check(stage, step.path)
        stage.check(dataclasses.replace(step, launch=launch(step)))


def is_open(step: Step) -> bool:
    """Whether there is consent to all of a step's code; without it only its keys are looked at."""
    return not consent.withheld(consent.code_of(step))


def build(step: Step) -> Any:
    """The step's stage for its checks: training arguments stay a plain namespace (see schema.build)."""
    return schema.build(kinds.find(kinds.STAGES, step.kind, step.path), step.options, step.path, dry=True)
