"""The plan as text: a line for each step, on request its keys with their origins, and how a step is launched."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from trimtab.pipelines.planning import field_types, finished, kinds, schema
from trimtab.pipelines.planning.commands import command, of_any_step, typed
from trimtab.pipelines.planning.errors import OWNED
from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.planning.store import STEPS

HEADINGS = ("step", "kind", "fingerprint", "state", "batch")
NAMED = 4  # steps of a launch, at most


def table(
    recipe: Recipe, steps: Sequence[Step], extra: Sequence[str] = (), auto: str | None = None, *, verbose: bool = False
) -> str:
    """Step, kind, fingerprint, state and batch, with `verbose` every key and its origin; and how a step is launched.

    The batch is that of an optimizer step, as rows of a micro-batch x accumulation x ranks.
    """
    rows = [(step.name, step.kind, step.fingerprint, step.state, str(step.batch or "")) for step in steps]
    widths = [max(len(row[column]) for row in (HEADINGS, *rows)) for column in range(len(HEADINGS))]
    line = "  ".join(f"{{:{width}}}" for width in widths)
    lines = [line.format(*HEADINGS).rstrip()]
    launches: dict[tuple[str, ...], list[Step]] = {}
    for step, row in zip(steps, rows, strict=True):
        state = row[HEADINGS.index("state")]
        if state != "done":
            launches.setdefault(of_any_step(command(recipe, step, extra, auto)), []).append(step)
        lines.append(f"{line.format(*row)}  {_origin(step) if state == 'done' else ''}".rstrip())
        if state == "damaged":
            lines += [f"    {sentence}" for sentence in step.damage]
        if verbose:
            lines += [f"    {key} = {value!r}  ({origin})" for key, value, origin in resolved(recipe, step)]
    counts = Counter(row[HEADINGS.index("state")] for row in rows)
    if counts["damaged"]:
        lines.append("--rebuild, or the commands below, make what is damaged again")
    told = [f"{counts[word]} {word}" for word in ("done", "damaged", "pending") if counts[word] or word != "damaged"]
    lines.append(f"{len(steps)} steps, {', '.join(told)}, in {recipe.run}")
    for words, alike in launches.items():
        several = ", ".join(step.name for step in alike[:NAMED])
        more = f" and {len(alike) - NAMED} more" if len(alike) > NAMED else ""
        launch = typed(command(recipe, alike[0], extra, auto) if len(alike) == 1 else words)
        lines.append(f"{'each' if len(alike) == len(steps) > 1 else several + more} by itself: {launch}")
    return "\n".join([*lines, *recipe.skipped, *_points(recipe)])


def _points(recipe: Recipe) -> list[str]:
    """A line for each point of a sweep, and what they share."""
    lines = []
    for point in recipe.points:
        done = sum(step.done for step in point.steps.values())
        lines.append(f"point {point.label}: {len(point.steps)} steps, {done} done")
    if recipe.study:
        begun = len({point.setting for point in recipe.points if point.setting})
        lines.append(f"search: {begun} of {recipe.study.search.trials} trials are begun, each with steps like these")
    elif lines:
        alone = sum(len(point.steps) for point in recipe.points)
        lines.append(f"{len(lines)} points have {alone} steps; {len(recipe.steps)} of them differ, and run once")
    return lines


def _origin(step: Step) -> str:
    """Where a finished step comes from when that is not this recipe, under this name."""
    recipe, name = finished.made_as(step.dir)
    told = f"as {recipe}/{name}" if recipe and (recipe, name) != (step.recipe, step.name) else ""
    is_at_home = step.dir.parent.name == STEPS or step.dir.parent == step.view.parent
    return told if is_at_home else f"{told or 'found'} in {step.dir}"


def resolved(recipe: Recipe, step: Step) -> list[tuple[str, Any, str]]:
    """(key, value, origin) of every option of a step; origin is the default's class, a line, or an override."""
    is_withheld = kinds.is_withheld(kinds.STAGES, step.kind)
    cls = None if is_withheld else kinds.find(kinds.STAGES, step.kind, step.path)
    rows: list[tuple[str, Any, str]] = []

    def walk(value: Any, hint: Any, path: tuple[str, ...]) -> None:
        hint = field_types.bare(hint)
        if dataclasses.is_dataclass(hint) and isinstance(value, dict):
            walk_fields(value, hint, path)
        elif isinstance(value, dict) and value:
            for key, item in value.items():
                walk(item, None, (*path, str(key)))
        else:
            prefixes = ((*step.path, *path[:end]) for end in range(len(path), 0, -1))  # `data: hub/name` has no inside
            origin = next((recipe.document.origins[p] for p in prefixes if p in recipe.document.origins), None)
            rows.append((".".join(path), value, origin or f"stage {step.stage!r}"))

    def walk_fields(value: dict[str, Any], hint: Any, path: tuple[str, ...]) -> None:
        types = field_types.hints(hint)
        for field in dataclasses.fields(hint):
            place = (*path, field.name)
            if field.name in value:
                walk(value[field.name], types[field.name], place)
            elif field.init and field.name not in OWNED:
                rows.append((".".join(place), field_types.default(field), f"default of {hint.__name__}"))

    walk(step.options if cls is None else schema.check(cls, step.options, step.path), cls, ())
    return rows
