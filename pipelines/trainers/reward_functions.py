"""Rewards as trl calls them, and what is done about completions that they cannot score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from trimtab import rewards
from trimtab.pipelines.trainers.seams.engines import whole_models
from trimtab.rewards import Outcome, RewardFailure

LARGEST = 1e18  # of a score: its square still fits in float32, in which trl keeps scores


class RewardFunction:
    """A reward as trl calls it, under its name in the recipe. What has failed is None, and kept in `failures`."""

    def __init__(self, name: str, reward: Callable[..., Any], *, on_failure: str = "stop", max_failures: float = 0.05):
        self.__name__, self.reward, self.on_failure, self.max_failures = name, reward, on_failure, max_failures
        self.failures: dict[int, RewardFailure] = {}  # of the last call, by the completion's place in it

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        with whole_models():  # a reward model is loaded by its first call
            answers = rewards.outcomes(self.reward, prompts, completions, name=self.__name__, **columns)
        outcomes = [_within(LARGEST, answer) for answer in answers]
        numbered = list(enumerate(outcomes))
        self.failures = {index: outcome for index, outcome in numbered if isinstance(outcome, RewardFailure)}
        return [None if isinstance(outcome, RewardFailure) else outcome for outcome in outcomes]

    def reports(self) -> list[tuple[int, str, Any]]:
        """(place, reason, sample) of each failure: what another rank can be told of it."""
        return [(index, failure.reason, failure.sample) for index, failure in self.failures.items()]


def _within(limit: float, outcome: Outcome) -> Outcome:
    """The outcome, or the failure of a score that would overflow in the training."""
    if isinstance(outcome, float) and abs(outcome) > limit:
        return RewardFailure(f"the score {outcome:g} overflows in a training, which takes scores up to {limit:g}")
    return outcome


def settle_failures(functions: Sequence[Any], scores: Tensor, count: int, group: int, step: int) -> None:
    """Does what each reward's `on_failure` says about the failures of all ranks, on all ranks alike.

    `scores` (all ranks' N, K) gets NaN where a whole group is left out; a rank has `count` completions, and `group` of
    them are of one prompt. Raises RewardFailure where a reward is to stop the run, which has made `step` steps.
    """
    ours = {column: function for column, function in enumerate(functions) if isinstance(function, RewardFunction)}
    reports = gather_object([{column: function.reports() for column, function in ours.items()}])
    for column, function in ours.items():  # and not of those that an environment brings
        failed: list[tuple[int, str, Any]] = []
        for rank, of_rank in enumerate(reports):
            failed += [(rank * count + index, reason, sample) for index, reason, sample in of_rank[column]]
        allowed = 0 if function.on_failure == "stop" else function.max_failures * len(scores)
        if len(failed) > allowed:
            index, reason, sample = failed[0]
            share = f"{len(failed)} of {len(scores)} completions of the rollout after step {step} failed"
            raise RewardFailure(f"{reason} ({share})", reward=function.__name__, index=index, sample=sample)
        if function.on_failure == "skip_group":
            for index, *_ in failed:
                start = index - index % group
                scores[start : start + group, column] = math.nan
