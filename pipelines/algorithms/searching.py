"""Constrained training whose thresholds are searched for while the policy is trained: NM-PPO in one run, and by Bayes.

Moskovitz et al. 2023 (https://arxiv.org/abs/2310.04373), section 5.3 and algorithm 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from trimtab.pipelines.algorithms import thresholds
from trimtab.pipelines.algorithms.lagrange import Multipliers
from trimtab.pipelines.algorithms.objectives import Lagrangian


@dataclass(kw_only=True)
class ThresholdSearch:
    """How thresholds are searched for, from where the policy starts to those in the rewards' blocks.

    The first points lie at random between the two, or `reach` times as far. The policy is driven to a point until
    every reward is `within` that share of its threshold, or for `patience` steps (an eighth of all when left out);
    then `metric`, a reward of the stage, is taken on `eval_data`. Values at points nearer than `cache` (a share, in
    every threshold) are taken again, unless they are older than `stale_after` steps (a quarter of all when left out).
    The search ends when a simplex's values have a standard deviation below `tolerance`, or for the last `settle` of
    all steps; the rest is trained at the best thresholds found.
    """

    search: Literal["nelder_mead", "bayes"] = "nelder_mead"
    metric: str
    within: float = 0.05
    patience: int | None = None
    reach: float = 1.0
    cache: float = 0.05
    stale_after: int | None = None
    tolerance: float = 0.0
    settle: float = 0.2

    def __post_init__(self) -> None:
        for name in ("within", "reach"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("cache", "tolerance", "settle"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        for name in ("patience", "stale_after"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class _Begun:
    """The search from the first rollout on: where the policy started, and which points have been asked for."""

    start: np.ndarray  # the rewards' means, in the order of the constraints
    search: thresholds.Search


class Searching(Lagrangian):
    """A Lagrangian whose thresholds move from point to point. `asks` says when the metric is wanted, `tell` takes it.

    Between the two nothing is random: all ranks come to the same thresholds, and a run that goes on from a checkpoint
    too, in the middle of a point as well.
    """

    def __init__(self, task: Mapping[str, float], multipliers: Multipliers, settings: ThresholdSearch, seed: int):
        super().__init__(task, multipliers)
        self.settings, self.seed = settings, seed
        self.names = list(multipliers.constraints)
        self.far = np.array([c.threshold for c in multipliers.constraints.values()])
        self.begun: _Begun | None = None  # None until every reward has been seen
        self.steps = self.spent = 0  # of all, and at this point
        self.total = math.inf  # steps of the whole run, which it says when it begins
        self.settled = False
        self.decisions: list[str] = []  # told since the last look

    def begin(self, total: int) -> None:
        """Told how many steps the run has, before it begins or goes on."""
        self.total = total
        if self.begun is not None:
            self.begun.search.stale_after = self.settings.stale_after or total / 4

    def observe(self, means: Mapping[str, float]) -> None:
        super().observe(means)
        if self.begun is None:
            start = np.array([self.multipliers.state.means.get(name, math.nan) for name in self.names])
            if not np.isnan(start).any():
                search = self._search(start)
                self.begun = _Begun(start, search)
                self._aim(search.point)

    def _search(self, start: np.ndarray) -> thresholds.Search:
        settings, high = self.settings, start + self.settings.reach * (self.far - start)

        def asking() -> thresholds.Asking:
            if settings.search == "bayes":
                return thresholds.bayes(start, high, self.seed)
            return thresholds.nelder_mead(thresholds.simplex(start, high, self.seed), settings.tolerance)

        stale = settings.stale_after or self.total / 4
        return thresholds.Search(asking, cache=settings.cache, stale_after=stale)

    def _aim(self, point: Sequence[float] | np.ndarray | None) -> None:
        """Moves the thresholds to a point; None, where there is nothing more to ask, leaves them."""
        if point is None:
            return
        self.spent = 0
        constraints = self.multipliers.constraints
        for name, value in zip(self.names, point, strict=True):
            constraints[name] = replace(constraints[name], threshold=float(value))

    def step(self) -> None:
        super().step()
        self.steps += 1
        self.spent += 1
        if not self.settled and self.steps >= (1 - self.settings.settle) * self.total:
            self._settle("the time for searching is over")

    def _settle(self, why: str) -> None:
        self.settled = True
        best = self.begun.search.best if self.begun else None
        if best is not None:
            self._aim(best["point"])
            value = f"{self.settings.metric} {best['value']:.4g}"
            self.decisions.append(f"{why}: held from now on {self._words(best['point'])} ({value})")

    @property
    def reached(self) -> bool:
        """Whether every reward is within its share of its threshold (or of the way there, where that is longer)."""
        if self.begun is None:
            return False
        means = self.multipliers.state.means
        for name, start in zip(self.names, self.begun.start, strict=True):
            threshold = self.multipliers.constraints[name].threshold
            allowed = self.settings.within * max(abs(threshold), abs(threshold - start))
            if abs(means[name] - threshold) > allowed:
                return False
        return True

    @property
    def asks(self) -> bool:
        """Whether the policy has been driven to the point, or for long enough, and the metric is wanted."""
        if self.settled or self.begun is None or self.spent == 0:
            return False
        patience = self.settings.patience or max(1, int(self.total / 8))
        return self.reached or self.spent >= patience

    def tell(self, value: float) -> None:
        """The metric on held-out prompts, at the point that was asked for. Raises ValueError where none was."""
        search = self.begun.search if self.begun else None
        if search is None or search.point is None:
            raise ValueError("no point was asked for")
        how = "reached" if self.reached else "not reached"
        asked_before = len(search.history)
        tried = f"{self._words(search.point)}: {self.settings.metric} {value:.4g}"
        self.decisions.append(f"{tried} after {self.spent} steps ({how})")
        search.tell(value, self.steps)
        for row in search.history[asked_before + 1 :]:
            self.decisions.append(f"{self._words(row['point'])}: {row['value']:.4g}, as near to it before")
        if search.point is None:
            self._settle("the simplex's values are all alike")
        else:
            self._aim(search.point)

    def _words(self, point: Sequence[float] | np.ndarray) -> str:
        return ", ".join(f"{name} {value:.3g}" for name, value in zip(self.names, point, strict=True))

    def report(self) -> dict[str, float]:
        numbers = super().report()
        if self.begun is not None:
            search = self.begun.search
            numbers["search/points"] = float(len(search.history))
            if search.best is not None:
                numbers["search/best"] = search.best["value"]
        return numbers

    def result(self) -> dict[str, Any]:
        """The point with the best value of the metric, by reward, and every point that was asked for."""
        best = self.begun.search.best if self.begun else None
        if self.begun is None or best is None:
            return {"thresholds": {}, "history": []}
        return {
            "thresholds": self._by_name(best["point"]),
            "metric": self.settings.metric,
            "history": [{**row, "point": self._by_name(row["point"])} for row in self.begun.search.history],
        }

    def _by_name(self, point: Sequence[float]) -> dict[str, float]:
        return dict(zip(self.names, point, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {
            "multipliers": super().state_dict(),
            "start": self.begun.start.tolist() if self.begun else None,
            "search": self.begun.search.state_dict() if self.begun else None,
            **{key: getattr(self, key) for key in ("steps", "spent", "settled")},
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        if saved["start"] is not None:
            start = np.array(saved["start"])
            self.begun = _Begun(start, self._search(start))
            self.begun.search.load_state_dict(saved["search"])
        for name, (_, threshold) in saved["multipliers"]["constraints"].items():
            if name in self.multipliers.constraints:
                constraint = self.multipliers.constraints[name]
                self.multipliers.constraints[name] = replace(constraint, threshold=threshold)
        super().load_state_dict(saved["multipliers"])
        self.steps, self.spent, self.settled = saved["steps"], saved["spent"], saved["settled"]
