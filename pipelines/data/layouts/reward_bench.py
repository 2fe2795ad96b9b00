"""Layout `reward_bench`: RewardBench's pairs, and the four answers to each prompt of RewardBench 2 as pairs.

data: {path: allenai/reward-bench, split: filtered, layout: reward_bench}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar

from trimtab.pipelines.data.layouts import MESSAGES, Layout, Row, message

if TYPE_CHECKING:
    from datasets import Features


@dataclass(kw_only=True)
class RewardBench(Layout):
    """A prompt with several answers becomes a pair of each good one with each bad one; `subset` stays."""

    title: ClassVar[str] = "RewardBench's"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("prompt", "chosen", "rejected", "chosen_model", "rejected_model"),
        ("prompt", "chosen", "rejected", "num_correct", "num_incorrect"),
    )

    @classmethod
    def fits(cls, features: Features, first: Row) -> bool:
        return super().fits(features, first) and "subset" in features

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        return {"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES}

    def convert(self, row: Row) -> Iterator[Row]:
        good, bad = (_listed(row[key]) for key in ("chosen", "rejected"))
        for better, worse in product(good, bad):
            yield {
                "prompt": [message("user", row["prompt"])],
                "chosen": [message("assistant", better)],
                "rejected": [message("assistant", worse)],
            }


def _listed(answers: str | list[str]) -> list[str]:
    return [answers] if isinstance(answers, str) else answers
