"""Layouts whose prompts have several answers with scores: which of them become rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar, Literal

from trimtab.pipelines.data.layouts import LISTS, MESSAGES, NUMBER, Dropped, Layout, Row, message

PAIRS = dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES)
SCORES = dict.fromkeys(("score_chosen", "score_rejected"), NUMBER)
RANKINGS = {"prompt": MESSAGES, "completions": LISTS}


@dataclass(kw_only=True)
class RankedAnswers(Layout):
    """Of the answers to a prompt, `answers` says which become rows.

    `best_worst` is one pair, `best_rest` the best against each of the others, `all_pairs` every two, and `ranking` one
    list from the best to the worst, in which the first of equally good answers stands for all of them. Two answers
    whose scores differ by no more than `margin` are no pair. Of equally good answers the first counts as the best, and
    the last as the worst.
    """

    answers: Literal["best_worst", "best_rest", "all_pairs", "ranking"] = "best_worst"
    margin: float = 0.0

    drops: ClassVar[Mapping[str, str]] = {
        "single": "fewer than two answers have a score",
        "tied": "no two of the answers to be paired differ by more than `margin`",
    }

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise ValueError(f"margin must be at least 0, got {self.margin}")

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        return RANKINGS if self.answers == "ranking" else PAIRS | SCORES

    def chosen(self, prompt: list[Row], scored: Sequence[tuple[float | None, str]]) -> Iterator[Row]:
        """The rows of a prompt whose answers have these scores, higher being better. Raises Dropped."""
        known = [(score, text) for score, text in scored if score is not None]
        if len(known) < 2:
            raise Dropped("single")
        ordered = sorted(known, key=lambda answer: -answer[0])
        if ordered[0][0] - ordered[-1][0] <= self.margin:
            raise Dropped("tied")
        if self.answers == "ranking":
            first_of_score = dict(reversed(ordered))
            texts = [first_of_score[score] for score in sorted(first_of_score, reverse=True)]
            yield {"prompt": prompt, "completions": [[message("assistant", text)] for text in texts]}
            return
        for better, worse in self._pairs(ordered):
            if better[0] - worse[0] > self.margin:
                yield _pair(prompt, better, worse)

    def _pairs(self, ordered: list[tuple[float, str]]) -> Iterable[tuple[tuple[float, str], tuple[float, str]]]:
        if self.answers == "all_pairs":
            return combinations(ordered, 2)
        others = ordered[1:] if self.answers == "best_rest" else ordered[-1:]
        return [(ordered[0], other) for other in others]


def _pair(prompt: list[Row], better: tuple[float, str], worse: tuple[float, str]) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "chosen": [message("assistant", better[1])],
        "rejected": [message("assistant", worse[1])],
        "score_chosen": better[0],
        "score_rejected": worse[0],
    }
