"""`trimtab diff`: two recipes or two steps, option by option, with what they read and what came of them.

A side is a recipe (a file, or the name of one that is shipped), a recipe and one of its steps as `mine.yaml:dpo`, or
the folder of a step. Steps of two recipes are the same by their fingerprints, under whatever names; others are
compared by their names. What is compared is what the fingerprint is of: options with their defaults, and hashes of
files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import finished
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Step
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.numerals import DASH, finite, number
from trimtab.pipelines.running import consents, environment, exits
from trimtab.pipelines.running.listing import columns

SHOWN = 12  # digits of a hash
UNTOLD = ("runtime", "per_second", "total_flos", "resumed_from")  # metrics of the machine


@dataclass(frozen=True)
class Side:
    """A step: what its fingerprint is of, flat, and its metrics where it is done."""

    name: str
    fingerprint: str
    identity: Mapping[str, Any]
    metrics: Mapping[str, float]


@exits.command
def diff(first: str, second: str, shipped: Callable[[str], str]) -> int:
    """Prints what differs: 0 where nothing does, 1 where something does, 2 where a side is nothing."""
    environment.prepare()
    try:
        before, after = _sides(first, shipped), _sides(second, shipped)
    except RecipeError as error:
        return environment.fail(str(error))
    if len(before) == len(after) == 1:
        before, after = ({"": side} for sides in (before, after) for side in sides.values())
    names = {side.fingerprint: side.name for side in after.values()}
    shared = [side for side in before.values() if side.fingerprint in names]
    same = {side.fingerprint: _both(side.name, names[side.fingerprint]) for side in shared}
    if same:
        print(f"the same: {', '.join(same.values())}")
    before, after = (
        {name: side for name, side in sides.items() if side.fingerprint not in same} for sides in (before, after)
    )
    for name in filter(after.__contains__, before):
        print(_compared(before[name], after[name]))
    for place, sides, others in ((first, before, after), (second, after, before)):
        if alone := [name for name in sides if name not in others]:
            print(f"only in {place}: {', '.join(alone)}")
    return 1 if before or after else 0


def changes(before: Path, after: Path) -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    """(key, before, after) of the options and of the metrics that differ between the folders of two finished steps."""
    one, other = _of_folder(before), _of_folder(after)
    return _differing(one.identity, other.identity, _said), _differing(one.metrics, other.metrics, number)


def _both(name: str, other: str) -> str:
    return name if name == other else f"{name} ({other} there)"


def _sides(word: str, shipped: Callable[[str], str]) -> dict[str, Side]:
    """The steps that a word stands for, by name."""
    if Path(word).is_dir():
        side = _of_folder(Path(word))
        return {side.name: side}
    path, _, name = word.partition(":")
    recipe = consents.load(shipped(path), (), Ranks())
    chosen = recipe.select(name or None)
    return {step.name: _of_step(step) for step in chosen}


def _of_folder(folder: Path) -> Side:
    try:
        record = finished.read(folder)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{folder}: {error}") from error
    if record is None:
        near = (
            suggest(folder.name, [path.name for path in folder.iterdir()]) if (folder / "view.json").exists() else ""
        )
        raise RecipeError(
            f"{folder} is no folder of a finished step: name a recipe, recipe:step or such a folder{near}"
        )
    identity = record.get("identity") or {"options": record.get("options")}
    return Side(str(record.get("step")), str(record.get("fingerprint")), _flat(identity), _metrics(record))


def _of_step(step: Step) -> Side:
    record = finished.read(step.dir) if step.done else None
    return Side(step.name, step.fingerprint, _flat(tracking.redact(step.identity)), _metrics(record or {}))


def _metrics(record: Mapping[str, Any]) -> dict[str, float]:
    metrics = (record.get("metrics") or {}).items()
    return {key: value for key, value in metrics if finite(value) and not any(word in key for word in UNTOLD)}


def _compared(before: Side, after: Side) -> str:
    """What differs between two steps."""
    made_of = _differing(before.identity, after.identity, _said)
    came_of_it = _differing(before.metrics, after.metrics, number) if before.metrics and after.metrics else []
    states = ("done" if side.metrics else "not done" for side in (before, after))
    rows: list[tuple[str, ...]] = [
        (before.name, before.fingerprint, after.fingerprint),
        *((f"    {key}", *values) for key, *values in made_of),
        ("  metrics", *states),
        *((f"    {key}", *values) for key, *values in came_of_it),
    ]
    return columns(rows)


def _differing(
    before: Mapping[str, Any], after: Mapping[str, Any], said: Callable[[Any], str]
) -> list[tuple[str, str, str]]:
    """(key, value, value) of what is not the same on both sides."""
    keys = dict.fromkeys([*before, *after])
    told = [(key, said(before.get(key, DASH)), said(after.get(key, DASH))) for key in keys]
    return [(key, one, other) for key, one, other in told if one != other]


def _said(value: Any) -> str:
    return value[:SHOWN] if isinstance(value, str) and len(value) == 64 else str(value)


def _flat(value: Any, path: Sequence[str] = ()) -> dict[str, Any]:
    """The leaves of nested mappings and lists, by their dotted keys without the word `options`."""
    return {".".join(keys).removeprefix("options."): leaf for keys, leaf in _leaves(value, tuple(path))}


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, list):
        value = {str(index): item for index, item in enumerate(value)} or "[]"
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, str(key)))
    else:
        yield path, value
