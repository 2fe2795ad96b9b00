"""A recipe's folder: links to its steps by their names, and view.json, which says what recipe it is a view for."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning.files import write_atomically
from trimtab.pipelines.planning.recipe import Recipe, Step

VIEW = "view.json"
logger = logging.getLogger(__name__)


def link(step: Step) -> None:
    """Points `<recipe>/<step>` at the step's folder; what is no link there is left alone."""
    place = step.view
    target = os.path.relpath(step.dir, place.parent)
    if place.is_symlink() and os.readlink(place) == target:
        return
    if place.exists() and not place.is_symlink():
        logger.warning("%s is no link, and is left alone: the step is in %s", place, step.dir)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, place)


def record(recipe: Recipe) -> None:
    """Links the steps that are there and writes the plan down, beside those with other overrides or ranks.

    What is as it was is not written again, and a disk that takes nothing stops nothing.
    """
    try:
        _record(recipe)
    except OSError as error:
        logger.warning("%s does not show all steps: %s", recipe.run, error)


def _record(recipe: Recipe) -> None:
    for step in recipe.steps:
        if os.path.lexists(step.dir):
            link(step)
    plan = {
        "path": str(Path(recipe.path).absolute()),
        "overrides": list(recipe.overrides),
        "ranks": recipe.ranks.said or recipe.ranks.every,
        "steps": {step.name: os.path.relpath(step.dir, recipe.run.parent) for step in recipe.steps},
    }
    before = plans(recipe.run)
    others = [old for old in before if any(old.get(key) != plan[key] for key in ("path", "overrides", "ranks"))]
    if before != [*others, plan]:
        former = before[-1] if before and before[-1]["steps"] != plan["steps"] else previous(recipe.run)
        recipe.run.mkdir(parents=True, exist_ok=True)
        said = {"plans": [*others, plan], "previous": former}
        write_atomically(recipe.run / VIEW, json.dumps(said, indent=1) + "\n")


def plans(run: Path) -> list[dict[str, Any]]:
    """What a recipe's folder says of the recipe: its path, overrides and steps, the newest plan last."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return list(json.loads((run / VIEW).read_text())["plans"])
    return []


def previous(run: Path) -> dict[str, Any] | None:
    """The plan with other steps that was a recipe's before its newest one, which nothing else keeps alive."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return json.loads((run / VIEW).read_text()).get("previous")
    return None
