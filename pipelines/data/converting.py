"""Rows of a published layout become rows that stages read: by the layout that the recipe names, or unasked."""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.data import layouts
from trimtab.pipelines.data.batches import REASON, Batches, Malformed
from trimtab.pipelines.data.layouts import Layout
from trimtab.pipelines.planning import field_types, kinds
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.files import content_hash

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.data.forms import Form


def convert(
    rows: Dataset, block: Mapping[str, Any] | None, source: str, path: Sequence[str]
) -> tuple[Dataset, Counter[str]]:
    """The rows of a dataset in a form that stages read, and how many were left out for which reason.

    `block` is the layout that the recipe names; what those layouts do that need no word is done to all rows. Raises
    RecipeError, at `path`, which names the file, the row and the layout.
    """
    dropped: Counter[str] = Counter()
    if block is not None and len(rows):
        layout = layouts.make(block)
        if not layout.reads(rows.column_names):
            needed = " or ".join(" + ".join(columns) for columns in layout.columns)
            there = f"it has: {', '.join(rows.column_names)}; needed: {needed}"
            raise RecipeError(f"{source} has not the layout {block['kind']!r} ({there})", path)
        rows, dropped = _converted(rows, layout, block["kind"], source, path)
    for word, cls in layouts.classes().items():
        if cls.unasked and len(rows) and cls.fits(rows.features, rows[0]):
            rows, _ = _converted(rows, cls(), word, source, path)
    return rows, dropped


def version(block: Mapping[str, Any] | None) -> list[str]:
    """What tells the code of all conversions from what it was, for what is kept of converted rows."""
    outside = kinds.source_file(kinds.LAYOUTS, block["kind"]) if block is not None else None
    paths = [*sorted(Path(layouts.__file__).parent.glob("*.py")), outside]
    return [content_hash(path) for path in paths if path is not None]


def cure(rows: Dataset, form: Form, source: str, key: str) -> str | None:
    """What to do about rows that have none of a form's columns, or None where nothing is known.

    That is the layout that the rows have and that gives such columns, as the recipe's `key` would say it, or the
    sentence of a layout that is refused.
    """
    answers = (cls.refusal or _proposal(word, cls, rows, form, source, key) for word, cls in _fitting(rows))
    return next(filter(None, answers), None)


def objection(rows: Dataset, wanted: Sequence[str], form: Form, source: str, key: str) -> str | None:
    """Why rows that have the `wanted` columns of a form are not to be trained on, or None.

    They are of a layout that is refused, or of one that needs more than these columns: answers without their question.
    """
    for word, cls in _fitting(rows):
        if cls.refusal is not None:
            return f"{source}: {cls.refusal}"
        needed = next(columns for columns in cls.columns if set(columns) <= set(rows.column_names))
        ignored = [name for name in needed if name not in (*wanted, "prompt")]
        has_prompt = "prompt" in rows.column_names and "prompt" not in needed
        if ignored and set(wanted) < set(needed) and not has_prompt:
            loss = f"{' + '.join(wanted)} would be read alone, without {' + '.join(ignored)}"
            meant = f"add `columns: [{', '.join(wanted)}]` if that is meant"
            return f"{source}: {loss}. {_proposal(word, cls, rows, form, source, key)}, or {meant}"
    return None


def _fitting(rows: Dataset) -> Iterator[tuple[str, type[Layout]]]:
    """The layouts with a word that the rows have."""
    first = rows[0] if len(rows) else {}
    for word, cls in layouts.classes().items():
        if first and not cls.unasked and cls.fits(rows.features, first):
            yield word, cls


def _proposal(word: str, cls: type[Layout], rows: Dataset, form: Form, source: str, key: str) -> str | None:
    """What to write for a layout to give columns of a form, with the least options; None where it gives none."""
    for options in _choices(cls):
        layout = cls(**options)
        kept = set(rows.column_names).difference(layout.reads(rows.column_names))
        given = kept.union(layout.gives(rows.column_names))
        if any(given.issuperset(columns) for columns in form.columns):
            words = ", ".join(f"{name}: {value}" for name, value in {"kind": word, **options}.items())
            written = f"{{{words}}}" if options else word
            return f"These rows are {cls.title}: write `{key}: {{path: {source}, layout: {written}}}`"
    return None


def _choices(cls: type[Layout]) -> Iterator[dict[str, Any]]:
    """The least options with which a layout can be had: none, or one that is a word."""
    hints = field_types.hints(cls)
    fields = cls.__dataclass_fields__.values()
    if not any(map(field_types.is_required, fields)):
        yield {}
    for field in fields:
        words = typing.get_args(hints[field.name]) if typing.get_origin(hints[field.name]) is typing.Literal else ()
        yield from ({field.name: word} for word in words)


def _converted(
    rows: Dataset, layout: Layout, word: str, source: str, path: Sequence[str]
) -> tuple[Dataset, Counter[str]]:
    from datasets import Features, Value

    consumed, given = layout.reads(rows.column_names), layout.features(rows)
    kept = [name for name in rows.column_names if name not in consumed and name not in given]
    features = {name: rows.features[name] for name in kept} | given | {REASON: Value("string")}
    order = _by_group(rows, layout.group) if layout.group else None
    batches = Batches(layout, rows.features, Features(features), kept, list(given), _version(word))
    try:
        converted = (
            (rows if order is None else rows.select(order))
            .with_format("arrow")
            .map(
                batches,
                batched=True,
                batch_size=1000 if order is None else len(rows),
                with_indices=True,
                remove_columns=rows.column_names,
                features=batches.target,
            )
        )
    except Malformed as error:
        number, reason = error.args
        number = number if order is None else order[number]
        raise RecipeError(f"{source}, row {number}, layout {word!r}: {reason}", path) from error.__cause__
    return _without_dropped(converted, layout, source, path)


def _without_dropped(rows: Dataset, layout: Layout, source: str, path: Sequence[str]) -> tuple[Dataset, Counter[str]]:
    reasons = rows[:][REASON].to_pylist()
    dropped = Counter(reason for reason in reasons if reason is not None)
    if dropped.total() == len(rows):
        counts = ", ".join(f"{count} {reason} ({layout.drops[reason]})" for reason, count in dropped.items())
        raise RecipeError(f"{source}: its layout leaves no row: {counts}", path)
    if dropped:
        rows = rows.select([index for index, reason in enumerate(reasons) if reason is None])
    return rows.with_format(None).remove_columns(REASON), dropped


def _by_group(rows: Dataset, column: str) -> list[int]:
    """The numbers of the rows with those of a group side by side, groups in the order in which they come first."""
    values = rows.with_format("arrow")[:][column].to_pylist()
    first: dict[Any, int] = {}
    for number, value in enumerate(values):
        first.setdefault(value, number)
    return sorted(range(len(rows)), key=[first[value] for value in values].__getitem__)


def _version(word: str) -> str | None:
    """What tells a layout's code from what it was: the conversion is cached."""
    file = kinds.source_file(kinds.LAYOUTS, word)
    return content_hash(file) if file else None
