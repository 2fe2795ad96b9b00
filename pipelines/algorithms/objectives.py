"""What constrained training makes of several rewards: the weights by which their advantages are mixed at each step.

Every objective has `weights()`, (weight of the KL penalty, weight of each reward's advantage); `observe(means)`, told
of every rollout before it is learned from; `step()`, after every optimizer step; `report()`, what to log of it, and
`warnings()`; and its state. Moskovitz et al. 2023
(https://arxiv.org/abs/2310.04373), sections 4 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers

# method -> the kind of constraint that a threshold means, or None where there are no multipliers
METHODS = {"mu": "at_least", "xi": "equal", "all": "at_most", "sat": None, "fixed": None}


class Objective(Protocol):
    def weights(self) -> tuple[float, dict[str, float]]: ...
    def observe(self, means: Mapping[str, float]) -> None: ...
    def step(self) -> None: ...
    def report(self) -> dict[str, float]: ...
    def warnings(self) -> dict[str, str]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, saved: Mapping[str, Any]) -> None: ...


class Lagrangian:
    """max task - beta KL with every constraint held by its multiplier: w_0 (sum_j a_j A_j - beta KL) + sum_i w_i A_i.

    `task` is reward -> a_j. In mu- and xi-PPO it is empty: the KL is the task. In All-PPO all rewards are in it.
    """

    def __init__(self, task: Mapping[str, float], multipliers: Multipliers):
        self.task, self.multipliers = dict(task), multipliers

    def weights(self):
        base, constrained = self.multipliers.weights()
        names = dict.fromkeys([*self.task, *constrained])
        return base, {name: base * self.task.get(name, 0.0) + constrained.get(name, 0.0) for name in names}

    def observe(self, means):
        self.multipliers.observe(means)

    def step(self):
        self.multipliers.step()

    def report(self):
        multipliers = self.multipliers
        found = _distances(multipliers.constraints, multipliers.state.means)
        found |= {f"multipliers/{name}": value for name, value in multipliers.values().items()}
        return found | {f"lambda/{name}": value for name, value in multipliers.effective().items()}

    def warnings(self):
        return self.multipliers.warnings()

    def state_dict(self):
        return self.multipliers.state_dict()

    def load_state_dict(self, saved):
        self.multipliers.load_state_dict(saved)


class Fixed:
    """Rewards by fixed weights: the control."""

    def __init__(self, task: Mapping[str, float]):
        self.task = dict(task)

    def weights(self):
        return 1.0, dict(self.task)

    def observe(self, means):
        pass

    def step(self):
        pass

    def report(self):
        return {}

    def warnings(self):
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, saved):
        pass


class Saturating(Fixed):
    """PPO-SAT with the penalty on the mean: max -sum_i a_i (v_i - theta_i)^2, so A_i weighs 2 a_i (theta_i - v_i).

    The paper's is per completion, -(r - theta)^2, which for a reward of 0 or 1 is -(1 - 2 theta) r - theta^2: at
    theta = 0.48 a slope of -0.04, away from the threshold, whatever the mean is.
    """

    def __init__(self, task: Mapping[str, float], constraints: Mapping[str, Constraint]):
        super().__init__(task)
        self.constraints = dict(constraints)
        self.means = {name: constraint.threshold for name, constraint in constraints.items()}

    def weights(self):
        return 1.0, {name: 2 * self.task[name] * (constraint.threshold - self.means[name])
                     for name, constraint in self.constraints.items()}  # fmt: skip

    def observe(self, means):
        self.means |= {name: means[name] for name in self.constraints if math.isfinite(means[name])}

    def report(self):
        found = _distances(self.constraints, self.means)
        return found | {f"weights/{name}": weight for name, weight in self.weights()[1].items()}

    def state_dict(self):
        return {"means": self.means}

    def load_state_dict(self, saved):
        self.means = dict(saved["means"])


def _distances(constraints: Mapping[str, Constraint], means: Mapping[str, float]) -> dict[str, float]:
    found = {f"thresholds/{name}": constraint.threshold for name, constraint in constraints.items()}
    return found | {f"violations/{name}": constraints[name].violation(mean) for name, mean in means.items()}
