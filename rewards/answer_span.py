"""Reward kind `answer_span`: other rewards on what is answered, without what was thought before it.

    rewards:
      meteor:
        kind: answer_span
        rewards: {meteor: {kind: meteor, column: solution}}
        marks: ["<|thinking|>", "<|/thinking|>"]

The rewards are asked of what stands behind the last end mark, so that thoughts neither help nor hurt. A completion
without marks is an answer as a whole, and one that never ended its thoughts has answered nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trimtab.rewards import Outcome, Reward, RewardFailure, settled, text
from trimtab.rewards._thoughts import MARKS, split, wrong
from trimtab.rewards.composite import ask, failed


@dataclass(kw_only=True)
class AnswerSpan:
    """The sum of the rewards' scores; it abstains where one abstains and fails where one fails."""

    rewards: dict[str, Reward]
    marks: list[str] = field(default_factory=lambda: list(MARKS))

    def __post_init__(self) -> None:
        if not self.rewards:
            raise ValueError("answer_span: rewards is empty: name at least one")
        if message := wrong(self.marks):
            raise ValueError(f"answer_span: {message}")

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        answers = ask(self.rewards, prompts, [self._answered(completion) for completion in completions], columns)
        rows = [dict(zip(answers, row, strict=True)) for row in zip(*answers.values(), strict=True)]
        return settled([failed(row) or _sum(row) for row in rows])

    def _answered(self, completion: Any) -> Any:
        """The completion, a string or messages, without its thoughts."""
        _, answer = split(text(completion), *self.marks)
        return answer if isinstance(completion, str) else [{"role": "assistant", "content": answer}]


def _sum(row: Mapping[str, Outcome]) -> float | None:
    scores = [outcome for outcome in row.values() if not isinstance(outcome, RewardFailure)]
    return None if None in scores else sum(score for score in scores if score is not None)
