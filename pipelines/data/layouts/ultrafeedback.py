"""Layout `ultrafeedback`: UltraFeedback as it was published, `completions` of an `instruction` with their ratings.

    data: {path: openbmb/UltraFeedback, layout: {kind: ultrafeedback, score: overall_score, margin: 0.5}}

The binarized form (a string `prompt`, `chosen` and `rejected` as messages) needs no layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from trimtab.pipelines.data.layouts import Row, lists, message
from trimtab.pipelines.data.ranked import RankedAnswers

if TYPE_CHECKING:
    from datasets import Features


@dataclass(kw_only=True)
class Ultrafeedback(RankedAnswers):
    """`score` is the rating that counts: the mean of four aspects (`fine-grained_score`) or that of the critique."""

    score: Literal["fine-grained_score", "overall_score"] = "fine-grained_score"

    title: ClassVar[str] = "UltraFeedback's"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (("instruction", "completions"),)

    @classmethod
    def fits(cls, features: Features, first: Row) -> bool:
        return super().fits(features, first) and lists(first["completions"], "response")

    def convert(self, row: Row) -> Iterator[Row]:
        scored = [(_number(answer[self.score]), answer["response"]) for answer in row["completions"]]
        return self.chosen([message("user", row["instruction"])], scored)


def _number(rating: str | float | None) -> float | None:
    """A rating, or None for a missing one, which some rows have as "N/A"."""
    return None if rating in (None, "N/A") else float(rating)
