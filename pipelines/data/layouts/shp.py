"""Layout `shp`: the Stanford Human Preferences, two comments on a post with the votes that they got.

data: {path: stanfordnlp/SHP, layout: {kind: shp, min_ratio: 2}}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from trimtab.pipelines.data.layouts import MESSAGES, Dropped, Layout, Row, message


@dataclass(kw_only=True)
class Shp(Layout):
    """`min_ratio` is the least ratio of the votes, `score_ratio`; its authors train on 2 and more."""

    min_ratio: float = 1.0

    title: ClassVar[str] = "SHP's"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("history", "human_ref_A", "human_ref_B", "labels", "score_ratio"),
    )
    drops: ClassVar[Mapping[str, str]] = {"below_ratio": "the ratio of the votes is less than `min_ratio`"}

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        return dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES)

    def convert(self, row: Row) -> Iterator[Row]:
        if row["score_ratio"] < self.min_ratio:
            raise Dropped("below_ratio")
        if row["labels"] not in (0, 1):
            raise ValueError(f"labels is {row['labels']!r}, which is neither 1 (A is preferred) nor 0 (B is)")
        answers = [row["human_ref_B"], row["human_ref_A"]]
        yield {
            "prompt": [message("user", row["history"])],
            "chosen": [message("assistant", answers[row["labels"]])],
            "rejected": [message("assistant", answers[1 - row["labels"]])],
        }
