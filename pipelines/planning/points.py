"""The points of a recipe: what `sweep`, `arms` and `search` make of it, each of them the recipe with other values.

    sweep: {stages.dpo.train.beta: [0.05, 0.1], seed: [1, 2, 3]}    # a grid: all combinations
    arms: {control: {}, matched: {stages.apo.arm: matched}}         # named sets of values, each with the whole grid

A key is the dotted path of a value, as on the command line; what the command line sets is swept no more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning.document import Document, path_of
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.files import fingerprint

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

VARIED = ("seed", "stages", "defaults", "inputs")  # what may differ between points
SEED = "seed"  # as the last part of a path: of repeats, over which points are averaged
LONGEST = 100  # characters of a label, which is part of a folder's name
NAME = re.compile(r"^[A-Za-z][\w-]*$")


@dataclass(frozen=True)
class Change:
    """A value that a point has in the place of the recipe's; `place` is where it is written."""

    path: tuple[str, ...]
    value: Any
    place: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """One of the values of an axis, or an arm."""

    label: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Axis:
    """What is varied by itself: points are all combinations of the choices of all axes."""

    place: tuple[str, ...]
    choices: tuple[Choice, ...]
    of_seeds: bool = False


@dataclass(frozen=True)
class Entry:
    """A path under `sweep`, what it is called in names, and the values that it is to have."""

    name: str
    path: tuple[str, ...]
    values: Any

    @property
    def dotted(self) -> str:
        """The path as it is written."""
        return ".".join(self.path)

    @property
    def place(self) -> tuple[str, str]:
        """Where it is written."""
        return "sweep", self.dotted

    @property
    def of_seeds(self) -> bool:
        """Whether its points are repeats of one setting."""
        return self.path[-1] == SEED


@dataclass(frozen=True)
class Point:
    """The recipe with one choice of each axis. `steps` are those of the plan, by their names in the recipe.

    Points of one `setting` differ in their seeds alone.
    """

    label: str
    setting: str
    seeds: str
    values: Mapping[str, Any]
    steps: Mapping[str, Step]


def entries(document: Document, overrides: Sequence[str]) -> list[Entry]:
    """All that is swept, but for what the command line sets. Raises RecipeError for a path of nothing."""
    fixed = [path_of(text) for text in overrides]
    block = document.values.get("sweep") or {}
    if not isinstance(block, dict):
        raise RecipeError(f"expected a mapping of paths to lists, got {block!r}", ("sweep",))
    paths = [tuple(str(dotted).split(".")) for dotted in block]
    listed = []
    for path, name in zip(paths, _names(paths), strict=True):
        entry = Entry(name, path, block.get(".".join(path)))
        if any(path[: len(override)] == override for override in fixed):
            continue
        with document.mistakes.collected():
            _check_path(document, path, entry.place)
            listed.append(entry)
    document.mistakes.raise_any()
    return listed


def axes(document: Document, listed: Sequence[Entry]) -> list[Axis]:
    """Those of the arms and of all that is swept. Raises RecipeError for what is no list."""
    listed_axes: list[Axis] = []
    with document.mistakes.collected():
        listed_axes += arms(document)
    for entry in listed:
        with document.mistakes.collected():
            listed_axes.append(swept(entry.name, entry.path, entry.place, entry.values))
    document.mistakes.raise_any()
    return listed_axes


def swept(name: str, path: tuple[str, ...], place: tuple[str, ...], values: Any) -> Axis:
    """The axis of one path. Raises RecipeError for what is no list of different values."""
    if isinstance(values, dict) and "low" in values:
        raise RecipeError("a range is for a `search` to choose from: write a list of values", place)
    if not isinstance(values, list) or not values:
        raise RecipeError(f"expected a list of values, such as [1, 2, 3], got {values!r}", place)
    for index, value in enumerate(values):
        if any(_is_same(value, other) for other in values[:index]):
            raise RecipeError(f"{value!r} is given twice: leave one out", place)
    words = [_word(value) for value in values]
    if None in words or len(set(words)) < len(words):
        words = [str(number) for number in range(1, len(values) + 1)]
    choices = []
    for index, (word, value) in enumerate(zip(words, values, strict=True)):
        choices.append(Choice(f"{name}={word}", (Change(path, value, (*place, str(index))),)))
    return Axis(place, tuple(choices), path[-1] == SEED)


def label(choices: Sequence[Choice]) -> str:
    """What a combination of choices is called: in folders, in tables, and as a run of wandb."""
    whole = ",".join(choice.label for choice in choices)
    return whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}-{fingerprint(whole)}"


def arms(document: Document) -> Iterator[Axis]:
    """The axis of the arms, where there are any."""
    blocks = document.values.get("arms")
    if not blocks:
        return
    if not isinstance(blocks, dict):
        raise RecipeError(f"expected a mapping of names to values, got {blocks!r}", ("arms",))
    choices = []
    for name, block in blocks.items():
        place = ("arms", str(name))
        if not isinstance(name, str) or not NAME.match(name):
            raise RecipeError(f"{name!r} is not a name: letters, digits, _ and -", place)
        if not isinstance(block, dict | None):
            raise RecipeError(f"expected a mapping of paths to values, got {block!r}", place)
        changes = []
        for dotted, value in (block or {}).items():
            path = tuple(str(dotted).split("."))
            _check_path(document, path, (*place, str(dotted)))
            changes.append(Change(path, value, (*place, str(dotted))))
        choices.append(Choice(name, tuple(changes)))
    yield Axis(("arms",), tuple(choices))


def _check_path(document: Document, path: tuple[str, ...], place: tuple[str, ...]) -> None:
    """Raises RecipeError for a path that no point can have a value at; the plan of a point finds unknown keys."""
    if path[0] not in VARIED:
        known = ", ".join(VARIED[1:])
        raise RecipeError(f"is no path of a value{suggest(path[0], VARIED)}: begin with seed, {known}", place)
    shortest = {"seed": 1, "stages": 3}.get(path[0], 2)
    if len(path) < shortest or "" in path:
        raise RecipeError("names no single value: write the whole path, as in stages.dpo.train.beta", place)
    block = document.values.get(path[0]) or {}
    if path[0] in ("stages", "inputs") and path[1] not in block:
        raise RecipeError(f"no {path[0].removesuffix('s')} {path[1]!r}{suggest(path[1], block)}", place)


def _names(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """For each path the shortest end of it that no other has."""
    ends = Counter(end for path in paths for end in _ends(path))
    return [next((end for end in _ends(path) if ends[end] == 1), ".".join(path)) for path in paths]


def _ends(path: tuple[str, ...]) -> list[str]:
    """`beta`, `train.beta`, ... of a path."""
    return [".".join(path[start:]) for start in range(len(path) - 1, -1, -1)]


def _is_same(value: Any, other: Any) -> bool:
    """Whether two values are one, where 1 and true are two."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _word(value: Any) -> str | None:
    """A value as part of a name; None of a block, which has none."""
    if isinstance(value, dict | list):
        return None
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = value.rstrip("/").rpartition("/")[2] if isinstance(value, str) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")[:24] or None
