"""Answers in rows of completions, or of pairs, by their places: what they say stays on the disk."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.data import grouping
from trimtab.rewards import text

if TYPE_CHECKING:
    from datasets import Dataset

TEXTS = ("prompt", "completion", "chosen", "rejected")


class Answers:
    """The answers of one dataset or several, one place after the other, in some thirty bytes each.

    `asks` and `says` stand for the words of the prompt and of the answer: 64 bits of a hash, equal for equal words.
    """

    def __init__(self, sources: Sequence[Dataset]):
        self.sources = sources
        self.source, self.row, self.side = array("B"), array("Q"), array("B")
        self.asks, self.says = array("Q"), array("Q")
        for source, rows in enumerate(sources):
            for number, row in enumerate(grouping.records(rows, TEXTS)):
                asks = hashed(text(row["prompt"]))
                for side, name in enumerate(sides(rows)):
                    self.source.append(source)
                    self.row.append(number)
                    self.side.append(side)
                    self.asks.append(asks)
                    self.says.append(hashed(text(row[name])))

    def __len__(self) -> int:
        return len(self.row)

    def batches(self) -> Iterator[tuple[list[Any], list[Any]]]:
        """Prompts and answers, in the order of their places, some at a time."""
        for rows in self.sources:
            records, names = grouping.records(rows, TEXTS), sides(rows)
            while batch := list(islice(records, grouping.BATCH)):
                prompts = [row["prompt"] for row in batch for _ in names]
                yield prompts, [row[name] for row in batch for name in names]

    def column(self, name: str) -> Iterator[Any]:
        """The values of a column of the rows, for each answer; None where a dataset lacks it."""
        for rows in self.sources:
            times = len(sides(rows))
            has_it = name in rows.column_names
            values = (row[name] for row in grouping.records(rows, [name])) if has_it else iter([None] * len(rows))
            for value in values:
                yield from [value] * times

    def of(self, place: int) -> tuple[dict[str, Any], Any]:
        """The row of an answer, and the answer."""
        rows = self.sources[self.source[place]]
        row = rows[self.row[place]]
        return row, row[sides(rows)[self.side[place]]]


def first_of_prompts(rows: Dataset) -> Dataset:
    """The first row of each prompt."""
    places: dict[int, int] = {}
    for number, row in enumerate(grouping.records(rows, ["prompt"])):
        places.setdefault(hashed(text(row["prompt"])), number)
    return rows.select(places.values())


def sides(rows: Dataset) -> tuple[str, ...]:
    """The columns with the answers of a row."""
    return ("completion",) if "completion" in rows.column_names else ("chosen", "rejected")


def hashed(words: str) -> int:
    """What stands for words."""
    return int.from_bytes(blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8).digest())
