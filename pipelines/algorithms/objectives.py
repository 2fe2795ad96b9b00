"""What constrained training makes of several rewards: the weights by which their advantages are mixed at each step.

Moskovitz et al. 2023 (https://arxiv.org/abs/2310.04373), sections 4 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from trimtab.pipelines.algorithms import multiplier_warnings
from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers

# method -> the kind of constraint that a threshold means, or None where there are no multipliers
METHODS = {"mu": "at_least", "xi": "equal", "all": "at_most", "sat": None, "fixed": None}


class Objective(Protocol):
    """What constrained training asks of any of them."""

    def weights(self) -> tuple[float, dict[str, float]]:
        """(weight of the KL penalty, weight of each reward's advantage)."""
        ...

    def observe(self, means: Mapping[str, float]) -> None:
        """Told the rewards' means of every rollout before it is learned from."""
        ...

    def step(self) -> None:
        """Called after every optimizer step."""
        ...

    def report(self) -> dict[str, float]:
        """What to log of it."""
        ...

    def warnings(self) -> dict[str, str]:
        """What is wrong with the run, by a name for each kind of trouble."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, saved: Mapping[str, Any]) -> None: ...


class Lagrangian:
    """max task - beta KL with every constraint held by its multiplier: w_0 (sum_j a_j A_j - beta KL) + sum_i w_i A_i.

    `task` is reward -> a_j. In mu- and xi-PPO it is empty: the KL is the task. In All-PPO all rewards are in it.
    """

    def __init__(self, task: Mapping[str, float], multipliers: Multipliers):
        self.task, self.multipliers = dict(task), multipliers

    def weights(self) -> tuple[float, dict[str, float]]:
        base, constrained = self.multipliers.weights()
        names = dict.fromkeys([*self.task, *constrained])
        return base, {name: base * self.task.get(name, 0.0) + constrained.get(name, 0.0) for name in names}

    def observe(self, means: Mapping[str, float]) -> None:
        self.multipliers.observe(means)

    def step(self) -> None:
        self.multipliers.step()

    def report(self) -> dict[str, float]:
        multipliers = self.multipliers
        return {
            **_distances(multipliers.constraints, multipliers.state.means),
            **{f"multipliers/{name}": value for name, value in multipliers.values().items()},
            **{f"lambda/{name}": value for name, value in multipliers.effective().items()},
        }

    def warnings(self) -> dict[str, str]:
        return multiplier_warnings.warnings(self.multipliers)

    def state_dict(self) -> dict[str, Any]:
        return self.multipliers.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.multipliers.load_state_dict(saved)


class Fixed:
    """Rewards by fixed weights: the control."""

    def __init__(self, task: Mapping[str, float]):
        self.task = dict(task)

    def weights(self) -> tuple[float, dict[str, float]]:
        return 1.0, dict(self.task)

    def observe(self, means: Mapping[str, float]) -> None:
        pass

    def step(self) -> None:
        pass

    def report(self) -> dict[str, float]:
        return {}

    def warnings(self) -> dict[str, str]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
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

    def weights(self) -> tuple[float, dict[str, float]]:
        missing = {name: constraint.threshold - self.means[name] for name, constraint in self.constraints.items()}
        return 1.0, {name: 2 * self.task[name] * distance for name, distance in missing.items()}

    def observe(self, means: Mapping[str, float]) -> None:
        self.means |= {name: means[name] for name in self.constraints if math.isfinite(means[name])}

    def report(self) -> dict[str, float]:
        weights = {f"weights/{name}": weight for name, weight in self.weights()[1].items()}
        return _distances(self.constraints, self.means) | weights

    def state_dict(self) -> dict[str, Any]:
        return {"means": self.means}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.means = dict(saved["means"])


def _distances(constraints: Mapping[str, Constraint], means: Mapping[str, float]) -> dict[str, float]:
    thresholds = {f"thresholds/{name}": constraint.threshold for name, constraint in constraints.items()}
    reached = {f"reached/{name}": mean for name, mean in means.items()}
    violations = {f"violations/{name}": constraints[name].violation(mean) for name, mean in means.items()}
    return thresholds | reached | violations
