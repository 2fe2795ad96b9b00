"""A reward with a text in it, such as a judge's rubric, and how well it tells the better answers of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.reward_blocks import cut
from trimtab.pipelines.scoring import asking
from trimtab.pipelines.scoring.rewriting import Told
from trimtab.rewards import RewardFailure, text

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.planning.recipe import Step

OTHER = "other"  # the column with the other answer of the pair, for a judge of two


class WordedReward:
    """A trial of texts in the key `key` of a reward's block, on rows of `prompt`, `chosen` and `rejected`.

    A row's score is 1 where the chosen answer has more, one half where both have the same or the reward abstains, and
    0 where the rejected one has. A rewrite by which the reward cannot be made, or does not say a score, has 0, and its
    feedback says why; the text `start` has to work, and a server has to be there.
    """

    def __init__(self, step: Step, rows: Dataset, block: Mapping[str, Any], key: str, start: str, size: int):
        self.step, self.rows, self.block, self.key, self.start, self.size = step, rows, block, key, start, size

    def asked(self, row: int) -> str:
        """What is told of a row: the question, and the two answers."""
        pair = self._pair(row)
        answers = "\n\n".join(f"[{name}]\n{text(pair[name])}" for name in ("chosen", "rejected"))
        return f"{text(pair['prompt'])}\n\n{answers}"

    def __call__(self, wording: str, rows: Sequence[int]) -> list[Told]:
        """What the reward says of each row. Raises RecipeError and RewardFailure for what is not the text's fault."""
        from datasets import Dataset

        from trimtab.rewards._http import PostFailure

        place = (*self.step.path, "reward")
        try:
            reward = schema.load_reward(cut({**self.block, self.key: wording}).reward, place)
        except (RecipeError, ValueError) as error:
            if wording == self.start:
                raise
            return [Told(0.0, "", f"This text cannot be used: {error}") for _ in rows]
        pairs = [self._pair(row) for row in rows]
        sides = [
            {**pair, "completion": pair[side], OTHER: pair[other]}
            for side, other in (("chosen", "rejected"), ("rejected", "chosen"))
            for pair in pairs
        ]
        outcomes, extra, _ = asking.ask(reward, "reward", Dataset.from_list(sides), range(len(sides)))
        for outcome in outcomes:
            is_outside = isinstance(outcome, PostFailure) or wording == self.start
            if isinstance(outcome, RewardFailure) and is_outside:
                raise outcome
        return [self._told(outcomes, extra, number, number + len(rows)) for number in range(len(rows))]

    def _pair(self, row: int) -> dict[str, Any]:
        """A row with the prompt apart, also where both answers begin with it."""
        from trl import maybe_extract_prompt

        pair = self.rows[row]
        apart = maybe_extract_prompt({key: pair[key] for key in ("prompt", "chosen", "rejected") if key in pair})
        return {**pair, **apart}

    def _told(self, outcomes: Sequence[Any], extra: Mapping[str, Sequence[Any]], better: int, worse: int) -> Told:
        """What came of the two answers of a pair, which stand at these places."""
        scores = [outcomes[better], outcomes[worse]]
        words = [
            f"{name}, of the {side} answer: {values[number]}"
            for name, values in extra.items()
            for side, number in (("chosen", better), ("rejected", worse))
            if isinstance(values[number], str)
        ]
        failures = [score.reason for score in scores if isinstance(score, RewardFailure)]
        if failures:
            return Told(0.0, "\n".join(words), f"There is no score: {failures[0]}")
        said = ", ".join(
            f"{side} {'no score' if score is None else format(score, '.3g')}"
            for side, score in zip(("chosen", "rejected"), scores, strict=True)
        )
        if None in scores or scores[0] == scores[1]:
            return Told(
                0.5, "\n".join([said, *words]), "Both are scored alike, and the chosen answer is the better one."
            )
        is_right = scores[0] > scores[1]
        verdict = (
            "Right: the chosen answer is the better one."
            if is_right
            else "Wrong: the chosen answer is the better one."
        )
        return Told(float(is_right), "\n".join([said, *words]), verdict)
