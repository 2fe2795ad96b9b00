"""Layout `nectar`: Nectar's `answers` to a `prompt` with role markers, each with its rank.

data: {path: berkeley-nest/Nectar, layout: {kind: nectar, answers: ranking}}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trimtab.pipelines.data.layouts import Row, lists
from trimtab.pipelines.data.layouts._markers import turns
from trimtab.pipelines.data.ranked import RankedAnswers

if TYPE_CHECKING:
    from datasets import Features


@dataclass(kw_only=True)
class Nectar(RankedAnswers):
    """The score of an answer is its rank with the sign changed, so `margin: 1` needs a distance of two ranks."""

    title: ClassVar[str] = "Nectar's"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (("prompt", "answers"),)

    @classmethod
    def fits(cls, features: Features, first: Row) -> bool:
        return super().fits(features, first) and lists(first["answers"], "rank")

    def convert(self, row: Row) -> Iterator[Row]:
        ranks = [(answer["rank"], answer["answer"]) for answer in row["answers"]]
        scored = [(None if rank is None else -float(rank), text) for rank, text in ranks]
        return self.chosen(turns(row["prompt"]), scored)
