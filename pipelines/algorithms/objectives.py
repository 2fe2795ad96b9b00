"""What constrained training makes of several rewards: the weights by which their advantages are mixed at each step.

Every objective has `weights()`, (weight of the KL penalty, weight of each reward's advantage); `observe(means)`, told
of every rollout before it is learned from; `step()`, after every optimizer step; and its state. Moskovitz et al. 2023
(https://arxiv.org/abs/2310.04373), sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pipelines.algorithms.lagrange import Constraint, Multipliers

# method -> the kind of constraint that a threshold means, or None where there are no multipliers
METHODS = {"mu": "at_least", "xi": "equal", "all": "at_most", "sat": None, "fixed": None}


class Objective(Protocol):
    def weights(self) -> tuple[float, dict[str, float]]: ...
    def observe(self, means: Mapping[str, float]) -> None: ...
    def step(self) -> None: ...
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
        self.thresholds = {name: constraint.threshold for name, constraint in constraints.items()}
        self.means = dict(self.thresholds)

    def weights(self):
        return 1.0, {name: 2 * self.task[name] * (theta - self.means[name]) for name, theta in self.thresholds.items()}

    def observe(self, means):
        self.means |= {name: means[name] for name in self.thresholds if means[name] == means[name]}

    def state_dict(self):
        return {"means": self.means}

    def load_state_dict(self, saved):
        self.means = dict(saved["means"])
