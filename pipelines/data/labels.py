"""The classes of labelled texts: which labels there are, in the order of their numbers 0, 1, ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab.pipelines.planning.errors import RecipeError, suggest

Label = int | str


def classes(labels: Sequence[Any], source: str, place: Sequence[str]) -> list[Label]:
    """The distinct labels, sorted. Raises RecipeError where they name no classes, or only one."""
    known = sorted({_label(label, f"{source}, row {row}", place) for row, label in enumerate(labels)})
    if len(known) < 2:
        raise RecipeError(f"{source}: every label is {known[0]!r}, and a classifier needs two or more", place)
    return known


def check(labels: Sequence[Any], known: Sequence[Label], source: str, place: Sequence[str]) -> None:
    """Raises RecipeError for a label that is none of the known classes."""
    for row, label in enumerate(labels):
        name = _label(label, f"{source}, row {row}", place)
        if name not in known:
            hint = suggest(str(name), map(str, known)) if isinstance(name, str) else ""
            raise RecipeError(
                f"{source}, row {row}: label {name!r} does not occur in `data`{hint} (it has: "
                f"{', '.join(map(repr, known))}). Leave such rows out, or add some to `data`",
                place,
            )


def _label(value: Any, row: str, place: Sequence[str]) -> Label:
    """A label as it is numbered. Raises RecipeError for what cannot name a class."""
    if value is None:
        raise RecipeError(f"{row}: label is null: leave such rows out", place)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # what a table makes of whole numbers beside nulls
    if not isinstance(value, int | str):
        raise RecipeError(f"{row}: label {value!r} names no class: use words or whole numbers", place)
    if isinstance(value, int) and value < 0:
        raise RecipeError(
            f"{row}: label {value}: numbers below 0 are how datasets mark rows without a label. Leave such rows out, "
            "or name the classes by words",
            place,
        )
    return value
