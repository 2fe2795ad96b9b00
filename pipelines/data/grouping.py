"""Rows of one prompt together, wherever they stand in a file, while only a few of them are in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 1000  # rows that are in memory at a time


def records(rows: Dataset, columns: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The rows, with those of the columns that they have."""
    kept = rows.select_columns([name for name in columns if name in rows.column_names])
    for batch in kept.iter(BATCH):
        for cells in zip(*batch.values(), strict=True):
            yield dict(zip(batch, cells, strict=True))


def numbers(values: Iterable[Any]) -> dict[Any, list[int]]:
    """value -> the numbers of its rows, values in the order in which they come first."""
    groups: dict[Any, list[int]] = {}
    for number, value in enumerate(values):
        groups.setdefault(value, []).append(number)
    return groups


def groups(
    rows: Dataset, of_groups: Sequence[Sequence[int]], columns: Iterable[str]
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each group, of which `of_groups` are the numbers."""
    ordered = records(rows.select(list(chain.from_iterable(of_groups))), columns)
    for group in of_groups:
        yield list(islice(ordered, len(group)))
