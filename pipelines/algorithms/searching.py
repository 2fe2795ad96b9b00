"""Constrained training whose thresholds are searched for while the policy is trained: NM-PPO in one run, and by Bayes.

Moskovitz et al. 2023 (https://arxiv.org/abs/2310.04373), section 5.3 and algorithm 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from trimtab.pipelines.algorithms import thresholds
from trimtab.pipelines.algorithms.objectives import Lagrangian


@dataclass(kw_only=True)
class ThresholdSearch:
    """How thresholds are searched for. Those in the rewards' blocks say how far, with `reach` times as far as allowed:

    the first points lie at random between where the policy starts and there. The policy is driven to a point until
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

    def __post_init__(self):
        for name in ("within", "reach"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("cache", "tolerance", "settle"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        for name in ("patience", "stale_after"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class Searching(Lagrangian):
    """A Lagrangian whose thresholds move from point to point. `asks` says when the metric is wanted, `tell` takes it.

    Between the two nothing is random: all ranks come to the same thresholds, and a run that goes on from a checkpoint
    too, in the middle of a point as well.
    """

    def __init__(self, task: Mapping[str, float], multipliers: Any, settings: ThresholdSearch, seed: int):
        super().__init__(task, multipliers)
        self.settings, self.seed = settings, seed
        self.names = list(multipliers.constraints)
        self.far = np.array([c.threshold for c in multipliers.constraints.values()])
        self.start: np.ndarray | None = None  # the rewards' means where the policy starts
        self.steps = self.spent = 0  # of all, and at this point
        self.total = math.inf  # steps of the whole run; known when it begins
        self.settled, self.search = False, None
        self.decisions: list[str] = []  # told since the last look

    def begin(self, total: int) -> None:
        """Told how many steps the run has, before it begins or goes on."""
        self.total = total
        if self.search is not None:
            self.search.stale_after = self.settings.stale_after or total / 4

    def observe(self, means):
        super().observe(means)
        if self.start is None:
            self.start = np.array([self.multipliers.state.means.get(name, math.nan) for name in self.names])
            if np.isnan(self.start).any():
                self.start = None
                return
            self._begin()
            self._aim(self.search.point)

    def _begin(self) -> None:
        settings, high = self.settings, self.start + self.settings.reach * (self.far - self.start)

        def asking():
            if settings.search == "bayes":
                return thresholds.bayes(self.start, high, self.seed)
            return thresholds.nelder_mead(thresholds.simplex(self.start, high, self.seed), settings.tolerance)

        stale = settings.stale_after or self.total / 4
        self.search = thresholds.Search(asking, cache=settings.cache, stale_after=stale)

    def _aim(self, point: np.ndarray) -> None:
        self.spent = 0
        constraints = self.multipliers.constraints
        for name, value in zip(self.names, point, strict=True):
            constraints[name] = replace(constraints[name], threshold=float(value))

    def step(self):
        super().step()
        self.steps += 1
        self.spent += 1
        if not self.settled and self.steps >= (1 - self.settings.settle) * self.total:
            self._settle("the time for searching is over")

    def _settle(self, why: str) -> None:
        self.settled = True
        best = self.search.best if self.search else None
        if best is not None:
            self._aim(np.array(best["point"]))
            self.decisions.append(f"{why}: held from now on {self._words(best['point'])} ({self.settings.metric} "
                                  f"{best['value']:.4g})")  # fmt: skip

    @property
    def reached(self) -> bool:
        """Whether every reward is within its share of its threshold (or of the way there, where that is longer)."""
        means = self.multipliers.state.means
        for name, start in zip(self.names, self.start, strict=True):
            threshold = self.multipliers.constraints[name].threshold
            allowed = self.settings.within * max(abs(threshold), abs(threshold - start))
            if abs(means[name] - threshold) > allowed:
                return False
        return True

    @property
    def asks(self) -> bool:
        """Whether the policy has been driven to the point, or for long enough, and the metric is wanted."""
        if self.settled or self.start is None or self.spent == 0:
            return False
        patience = self.settings.patience or max(1, int(self.total / 8))
        return self.reached or self.spent >= patience

    def tell(self, value: float) -> None:
        """The metric on held-out prompts, at this point."""
        how = "reached" if self.reached else "not reached"
        before = len(self.search.history)
        self.decisions.append(f"{self._words(self.search.point)}: {self.settings.metric} {value:.4g} after "
                              f"{self.spent} steps ({how})")  # fmt: skip
        self.search.tell(value, self.steps)
        for row in self.search.history[before + 1 :]:
            self.decisions.append(f"{self._words(row['point'])}: {row['value']:.4g}, as near to it before")
        if self.search.point is None:
            self._settle("the simplex's values are all alike")
        else:
            self._aim(self.search.point)

    def _words(self, point: Any) -> str:
        return ", ".join(f"{name} {value:.3g}" for name, value in zip(self.names, point, strict=True))

    def report(self):
        found = super().report()
        if self.search is not None:
            found["search/points"] = float(len(self.search.history))
            if self.search.best is not None:
                found["search/best"] = self.search.best["value"]
        return found

    def found(self) -> dict[str, Any]:
        """The point with the best value of the metric, by reward, and every point that was asked for."""
        if self.search is None or self.search.best is None:
            return {"thresholds": {}, "history": []}
        return {
            "thresholds": dict(zip(self.names, self.search.best["point"], strict=True)),
            "metric": self.settings.metric,
            "history": [{**row, "point": dict(zip(self.names, row["point"], strict=True))}
                        for row in self.search.history],
        }  # fmt: skip

    def state_dict(self):
        return {
            "multipliers": super().state_dict(),
            "start": None if self.start is None else self.start.tolist(),
            "search": self.search.state_dict() if self.search else None,
            **{key: getattr(self, key) for key in ("steps", "spent", "settled")},
        }

    def load_state_dict(self, saved):
        if saved["start"] is not None:
            self.start = np.array(saved["start"])
            self._begin()
            self.search.load_state_dict(saved["search"])
        for name, (_, threshold) in saved["multipliers"]["constraints"].items():
            if name in self.multipliers.constraints:
                constraint = self.multipliers.constraints[name]
                self.multipliers.constraints[name] = replace(constraint, threshold=threshold)
        super().load_state_dict(saved["multipliers"])
        self.steps, self.spent, self.settled = saved["steps"], saved["spent"], saved["settled"]
