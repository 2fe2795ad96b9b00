"""Which tokens of an answer are learned, where what a model thinks before it answers is not (arXiv 2410.12375).

What is masked is read by the model and never scored: it may think whatever helps the answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


class Unlearnable(ValueError):
    """Rows of which a mask leaves nothing, or that it refuses."""


@dataclass(kw_only=True)
class AnswerMask:
    """`before` masks all up to the last such mark, and `inside` a `share` of what stands between two marks.

    `keep_end` says that the marks themselves are learned. `missing` is what becomes of a row with an answer that has
    no such mark or no such span: it is learned whole, as in the paper's code, left out, or an error. All are counted.
    """

    before: str | None = None
    inside: list[str] | None = None
    share: float | None = None
    keep_end: bool = True
    missing: Literal["learn", "drop", "error"] = "learn"

    def __post_init__(self) -> None:
        if (self.before is None) == (self.inside is None):
            raise ValueError("give one of `before: MARK` and `inside: [BEGIN, END]`")
        if self.inside is not None and (len(self.inside) != 2 or self.inside[0] == self.inside[1]):
            raise ValueError(f"`inside` takes two marks, of the beginning and of the end, got {self.inside}")
        if (self.inside is None) != (self.share is None):
            raise ValueError("`share` goes with `inside`, and says how much of a span is masked")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {self.share}")

    @property
    def marks(self) -> list[str]:
        """The marks that it looks for."""
        return self.inside or [str(self.before)]

    def learned(self, answer: Sequence[int], marks: Sequence[int], seed: int) -> list[bool] | None:
        """Which tokens of an answer are learned, by the ids of `marks`; None where it has no mark or no span.

        What is drawn depends on the answer and the seed alone, so that it is the same in every epoch and on any rank.
        """
        if self.before is not None:
            return after(answer, marks[0], self.keep_end)
        drawn = random.Random(f"{seed}-{list(answer)}")
        return outside(answer, marks[0], marks[1], float(self.share or 0), self.keep_end, drawn)


def after(answer: Sequence[int], end: int, keep_end: bool) -> list[bool] | None:
    """True behind the last `end`, and at it with `keep_end`; None where there is none."""
    if end not in answer:
        return None
    last = len(answer) - 1 - list(reversed(answer)).index(end)
    return [place > last or (keep_end and place == last) for place in range(len(answer))]


def outside(
    answer: Sequence[int], begin: int, end: int, share: float, keep_marks: bool, drawn: random.Random
) -> list[bool] | None:
    """True but for a random `share` of the tokens inside spans, and for the spans' marks without `keep_marks`.

    Spans that are nested count as the outermost one. A mark without its other one is a token as any other. Of n tokens
    inside, the nearest whole number to share * n is masked. None where there is no span.
    """
    spans = _outermost(answer, begin, end)
    if not spans:
        return None
    marks = {place for first, last in spans for place in (first, last)}
    within = [place for first, last in spans for place in range(first + 1, last)]
    inner_marks = {place for place in within if answer[place] in (begin, end)}
    words = [place for place in within if place not in inner_marks]
    masked = set(drawn.sample(words, round(share * len(words))))
    if not keep_marks:
        masked |= marks | inner_marks
    return [place not in masked for place in range(len(answer))]


def _outermost(answer: Sequence[int], begin: int, end: int) -> list[tuple[int, int]]:
    """The places of the marks of every span that is inside no other."""
    spans: list[tuple[int, int]] = []
    opened: list[int] = []
    for place, token in enumerate(answer):
        if token == begin:
            opened.append(place)
        elif token == end and opened:
            first = opened.pop()
            spans = [span for span in spans if span[0] < first]  # those inside it
            spans.append((first, place))
    return spans
