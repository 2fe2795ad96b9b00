"""A mask on the answers of whole datasets: which tokens are learned, and which rows are left out for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.pipelines.algorithms.answer_masks import AnswerMask, Unlearnable


@dataclass(frozen=True)
class MaskedAnswers:
    """`marks` are the ids of the tokens that the mask looks for, and `seed` is what a random share is drawn by."""

    mask: AnswerMask
    marks: tuple[int, ...]
    seed: int

    def __call__(self, answer: Sequence[int]) -> list[bool]:
        """Which tokens of an answer are learned; all of one without marks."""
        learned = self.mask.learned(answer, self.marks, self.seed)
        return [True] * len(answer) if learned is None else learned

    def kept(self, rows: Any) -> tuple[Any, dict[str, float]]:
        """The rows that are learned, and what was counted of all of them.

        `answers_unmarked` have no mark, `rows_unmarked` are left out for one, `rows_nothing_left` since one of their
        answers ends with its mark, and `masked` is the share of the answers' tokens that are not learned. Raises
        Unlearnable where no row is left, and for an answer without a mark where that is an error.
        """
        counts: Counter[str] = Counter(answers_unmarked=0, rows_unmarked=0, rows_nothing_left=0)
        places, masked, tokens = [], 0, 0
        for place, answers in enumerate(rows["completion_ids"]):
            learned = [self.mask.learned(answer, self.marks, self.seed) for answer in answers]
            unmarked = sum(of_answer is None for of_answer in learned)
            counts["answers_unmarked"] += unmarked
            if unmarked and self.mask.missing == "error":
                raise Unlearnable(f"row {place} has an answer without {' and '.join(self.mask.marks)}")
            if unmarked and self.mask.missing == "drop":
                counts["rows_unmarked"] += 1
            elif not all(of_answer is None or any(of_answer) for of_answer in learned):
                counts["rows_nothing_left"] += 1
            else:
                places.append(place)
                masked += sum(of_answer.count(False) for of_answer in learned if of_answer is not None)
                tokens += sum(map(len, answers))
        if not places:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise Unlearnable(f"the mask leaves nothing to learn of {len(rows)} rows: {told}")
        kept = rows if len(places) == len(rows) else rows.select(places)
        return kept, {**counts, "masked": masked / tokens}
