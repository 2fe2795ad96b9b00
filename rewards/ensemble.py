"""Reward kind `ensemble`: several judges of the same thing, and how far they agree.

    rewards:
      helpful:
        kind: ensemble
        reduce: mean_minus_std
        k: 1.0
        rewards:
          first: {kind: reward_model, path: $helpful_1, normalize: true}
          second: {kind: reward_model, path: $helpful_2, normalize: true}

The members must be on one scale, or the one with the largest numbers decides (`min`: the one with the smallest):
reward models that were trained apart differ by a constant and a factor, which `normalize: true` takes away.
"""

from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any, Literal

from trimtab.rewards import Outcome, Reward, settled
from trimtab.rewards.composite import ask, failed


@dataclass(kw_only=True)
class Ensemble:
    """One score from the scores s_1 ... s_n of the members.

    - `mean`: mean(s)
    - `min`: min(s), worst-case optimisation
    - `mean_minus_std`: mean(s) - k * std(s), std(s)^2 = mean((s - mean(s))^2)

    Both conservative forms are those of Coste et al. 2023, https://arxiv.org/abs/2310.02743, but that their
    uncertainty-weighted optimisation subtracts a multiple of the variance: the standard deviation has the unit of the
    scores, so that one `k` suits scores of any scale. Where a member abstains the ensemble abstains; where one fails
    it fails. The members' scores go to `log_extra` under their names, std(s) under `std`. Raises ValueError for less
    than two members, or a `k` that is negative or not used.
    """

    rewards: dict[str, Reward]
    reduce: Literal["mean", "min", "mean_minus_std"] = "mean"
    k: float = 1.0

    def __post_init__(self) -> None:
        if len(self.rewards) < 2:
            raise ValueError(f"ensemble: needs at least 2 members, got {len(self.rewards)}")
        if "std" in self.rewards:
            raise ValueError("ensemble: no member can be called 'std', the name under which the spread is logged")
        if self.k < 0:
            raise ValueError(f"ensemble: k must not be negative, got {self.k}: that would reward disagreement")
        if self.k != 1.0 and self.reduce != "mean_minus_std":
            raise ValueError("ensemble: k belongs to mean_minus_std")

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        answers = ask(self.rewards, prompts, completions, columns)
        rows = [dict(zip(answers, row, strict=True)) for row in zip(*answers.values(), strict=True)]
        whole = [_scores(row) for row in rows]
        if "log_extra" in columns:
            columns["log_extra"]("std", [pstdev(scores) if scores else None for scores in whole])
        return settled([failed(row) or self._reduced(scores) for row, scores in zip(rows, whole, strict=True)])

    def _reduced(self, scores: list[float]) -> float | None:
        if not scores:
            return None
        if self.reduce == "min":
            return min(scores)
        return fmean(scores) - (self.k * pstdev(scores) if self.reduce == "mean_minus_std" else 0.0)


def _scores(row: dict[str, Outcome]) -> list[float]:
    """The scores of all members, none where one of them has none."""
    scores = [outcome for outcome in row.values() if isinstance(outcome, float)]
    return scores if len(scores) == len(row) else []
