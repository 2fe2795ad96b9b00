"""Reward kind `vote`: whether a completion gives the answer that most completions of its prompt give.

rewards:
  agreed: {kind: vote}                            # for problems whose answer nobody knows
  right:                                          # by the answer where there is one, and by the vote elsewhere
    kind: composite
    missing: ignore
    rewards: {gold: {kind: math}, agreed: {kind: vote, column: answer}}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from trimtab.rewards import text
from trimtab.rewards._answers import vote


@dataclass(kw_only=True)
class Vote:
    """1 for the answer that most of a prompt's completions in one call give, and 0 for another one, or for none.

    An answer is what stands in the last box, behind the last ####, or else the last number. There is no score where
    two answers lead, where the first has less than `share` of the completions, or where the row has a gold answer in
    `column`. Raises ValueError for a missing column.
    """

    share: float = 0.0
    column: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"vote: share must be from 0 to 1, got {self.share}")

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        if self.column is not None and self.column not in columns:
            raise ValueError(f"vote: the data has no column {self.column!r} (it has: {', '.join(columns)})")
        answers = [vote(text(completion)) for completion in completions]
        votes: dict[str, list[Hashable | None]] = {}
        for prompt, answer in zip(prompts, answers, strict=True):
            votes.setdefault(text(prompt), []).append(answer)
        elected = {prompt: self._elected(given) for prompt, given in votes.items()}
        winners = [elected[text(prompt)] for prompt in prompts]
        golds = [None] * len(answers) if self.column is None else columns[self.column]
        return [
            None if winner is None or gold is not None else float(answer == winner)
            for answer, winner, gold in zip(answers, winners, golds, strict=True)
        ]

    def _elected(self, given: list[Hashable | None]) -> Hashable | None:
        """The answer that has won, or None."""
        votes = Counter(answer for answer in given if answer is not None).most_common()
        (first, most), (_, second) = [*votes, (None, 0), (None, 0)][:2]
        is_won = most > second and most >= self.share * len(given)
        return first if is_won else None
