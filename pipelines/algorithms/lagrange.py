"""Lagrange multipliers that hold rewards at thresholds while a policy is trained.

Moskovitz et al. 2023 (https://arxiv.org/abs/2310.04373), sections 4 and 5: max_pi min_mu v_0 + sum_i mu_i (v_i -
theta_i), where v_0 is the task's value and v_i the mean of reward i. The policy is trained on mixed advantages,
`weights()`; the multipliers go down the gradient, so that one grows while its constraint is violated.

Signs: a multiplier of `at_least` and `at_most` is never negative and its reward's weight is + or - the multiplier;
one of `equal` may be either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab.pipelines.algorithms.parametrizations import Parametrization, raw_of, value_and_slope

WINDOW = 40  # steps of which the violations are kept, for warnings


@dataclass(frozen=True)
class Constraint:
    """What a reward's mean has to be."""

    threshold: float
    kind: Literal["at_least", "at_most", "equal"] = "at_least"

    @property
    def sign(self) -> int:
        return -1 if self.kind == "at_most" else 1

    def violation(self, mean: float) -> float:
        """In units of the reward; above 0 when violated (for `equal`: when below the threshold)."""
        return self.sign * (self.threshold - mean)


@dataclass(kw_only=True)
class MultiplierSettings:
    """How multipliers are learned: by gradient descent, once for each optimizer step of the policy.

    The descent has `learning_rate`, `momentum` and a gradient of norm `max_grad_norm` at most (the paper's values are
    the defaults) and begins after `delay` steps. `initial` is where the multipliers begin (0.5; 0 for `equal`); `cap`
    ends unbounded ones. `smoothing` in [0, 1) is the weight of the past in the means that they see. `proportional`
    adds that much of the violation to `raw` for the moment, which makes a PI controller (Stooke et al. 2020, arXiv
    2007.03964); `penalty` adds it to lambda, as the augmented Lagrangian does.

    `update: augmented` is the method of multipliers: lambda = max(0, lambda + `penalty` violation), exactly and
    without a learning rate. `every` is how many steps the policy takes for one of the multipliers, so that it can come
    near its best for them. `anchoring: c` pulls the n-th step back to where the multipliers began by c / (n + c), as
    Halpern's iteration does with 1. After `settle` steps multipliers stand still, at their mean over the second half
    of those: their averaged iterates.
    """

    parametrization: Parametrization = "bounded"
    update: Literal["gradient", "augmented"] = "gradient"
    learning_rate: float = 0.1
    momentum: float = 0.1
    max_grad_norm: float = 0.5
    delay: int = 0
    every: int = 1
    initial: float | None = None
    cap: float | None = None
    smoothing: float = 0.0
    proportional: float = 0.0
    penalty: float = 0.0
    anchoring: float = 0.0
    settle: int | None = None

    def __post_init__(self) -> None:
        for name in ("momentum", "smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("delay", "proportional", "penalty", "anchoring"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")
        if self.settle is not None and self.settle < 2:
            raise ValueError(f"settle must be at least 2, got {self.settle}")
        bounded = self.parametrization == "bounded"
        if self.initial is not None and (self.initial < 0 or (bounded and self.initial >= 1)):
            raise ValueError(f"initial must be at least 0{' and below 1' if bounded else ''}, got {self.initial}")
        if bounded and (self.cap is not None or self.penalty):
            raise ValueError("cap and penalty are for unbounded multipliers: choose another parametrization")
        if self.update == "augmented":
            self._check_augmented()

    def _check_augmented(self) -> None:
        if self.parametrization != "projected" or not self.penalty:
            raise ValueError("update: augmented is for `parametrization: projected` with a `penalty` above 0")
        for name in ("learning_rate", "momentum", "max_grad_norm", "proportional", "anchoring"):
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise ValueError(f"{name} has no meaning with update: augmented, whose step is `penalty`")


@dataclass
class _State:
    """Everything that a run has to find again; all numbers are float64, which JSON keeps exactly."""

    raw: dict[str, float]
    velocity: dict[str, float]
    means: dict[str, float] = field(default_factory=dict)
    average: dict[str, float] = field(default_factory=dict)  # of the multipliers that `settle` ends with
    history: list[dict[str, float]] = field(default_factory=list)  # the last violations
    steps: int = 0


class Multipliers:
    """One multiplier for each constraint, by name.

    `observe` takes the rewards' means over all completions of a rollout, `weights` says how advantages are mixed now,
    `step` moves the multipliers. A pure function of what it observes: equal on all ranks when those means are.
    """

    def __init__(self, constraints: Mapping[str, Constraint], settings: MultiplierSettings | None = None):
        self.constraints, self.settings = dict(constraints), settings or MultiplierSettings()
        if self.settings.parametrization == "log" and any(c.kind == "equal" for c in self.constraints.values()):
            raise ValueError("log multipliers are never negative: an `equal` constraint needs another parametrization")
        raw = {name: self._start(constraint) for name, constraint in self.constraints.items()}
        self.state = _State(raw, dict.fromkeys(constraints, 0.0))

    def _start(self, constraint: Constraint) -> float:
        equal, multiplier = constraint.kind == "equal", self.settings.initial
        if multiplier is None:
            multiplier = 0.0 if equal else 0.5
        return raw_of(multiplier, self.settings.parametrization, equal)

    def _value(self, name: str, raw: float) -> tuple[float, float]:
        """The multiplier and its derivative by `raw`."""
        return value_and_slope(raw, self.settings.parametrization, self.constraints[name].kind == "equal")

    def values(self) -> dict[str, float]:
        """The multipliers: s if bounded, otherwise lambda."""
        multipliers = {}
        for name, constraint in self.constraints.items():
            violation = self.violation(name)
            value, _ = self._value(name, self.state.raw[name] + self.settings.proportional * violation)
            if self._settled():
                value = self.state.average[name]
            elif self.settings.penalty:
                value += self.settings.penalty * violation
                value = value if constraint.kind == "equal" else max(0.0, value)
            cap = self.settings.cap
            multipliers[name] = value if cap is None else max(-cap, min(cap, value))
        return multipliers

    def weights(self) -> tuple[float, dict[str, float]]:
        """(weight of the task, weight of each constrained reward's advantage)."""
        values = self.values()
        signed = {name: self.constraints[name].sign * value for name, value in values.items()}
        if self.settings.parametrization == "bounded":
            return len(values) - sum(values.values()), signed
        if self.settings.parametrization == "log":
            total = 1 + sum(values.values())
            return 1 / total, {name: value / total for name, value in signed.items()}
        return 1.0, signed

    def effective(self) -> dict[str, float]:
        """lambda: each multiplier in units of the task's weight."""
        task, _ = self.weights()
        scale = task if self.settings.parametrization == "bounded" else 1.0
        return {name: value / max(scale, 1e-12) for name, value in self.values().items()}

    def observe(self, means: Mapping[str, float]) -> None:
        """The rewards' means over completions, NaN where none was scored, which leaves the last one standing."""
        past = self.settings.smoothing
        for name in self.constraints:
            mean = means[name]
            if math.isfinite(mean):
                before = self.state.means.get(name, mean)
                self.state.means[name] = past * before + (1 - past) * mean

    def step(self) -> None:
        """Down the gradient of sum_i multiplier_i (mean_i - threshold_i), through the parametrisation."""
        state, settings = self.state, self.settings
        stand_still = self._settled()
        state.steps += 1
        if stand_still:
            return
        state.history = [*state.history, {name: self.violation(name) for name in self.constraints}][-WINDOW:]
        moves, rest = divmod(state.steps - settings.delay, settings.every)
        if moves > 0 and rest == 0:
            (self._augment if settings.update == "augmented" else self._descend)()
            self._pull_back(moves)
        if settings.settle is not None:
            self._average(state.steps - settings.settle // 2)

    def _settled(self) -> bool:
        return self.settings.settle is not None and self.state.steps >= self.settings.settle

    def _descend(self) -> None:
        state, settings = self.state, self.settings
        slopes = {name: self._value(name, state.raw[name])[1] for name in self.constraints}
        gradient = {name: slope * self.violation(name) for name, slope in slopes.items()}
        norm = math.sqrt(sum(value * value for value in gradient.values()))
        shrink = min(1.0, settings.max_grad_norm / norm) if norm else 1.0
        for name, constraint in self.constraints.items():
            state.velocity[name] = settings.momentum * state.velocity[name] + shrink * gradient[name]
            raw = state.raw[name] + settings.learning_rate * state.velocity[name]
            if settings.parametrization == "projected" and constraint.kind != "equal":
                raw = max(0.0, raw)
            if settings.parametrization == "log" and settings.cap is not None:
                raw = min(raw, math.log(settings.cap))
            state.raw[name] = raw

    def _augment(self) -> None:
        for name, constraint in self.constraints.items():
            raw = self.state.raw[name] + self.settings.penalty * self.violation(name)
            self.state.raw[name] = raw if constraint.kind == "equal" else max(0.0, raw)

    def _pull_back(self, moves: int) -> None:
        """Halpern's step towards the start, after so many moves."""
        pull = self.settings.anchoring / (moves + self.settings.anchoring)
        for name, constraint in self.constraints.items():
            self.state.raw[name] += pull * (self._start(constraint) - self.state.raw[name])

    def _average(self, count: int) -> None:
        """Takes the multipliers into their mean, as the count-th."""
        for name in self.constraints if count > 0 else ():
            value, _ = self._value(name, self.state.raw[name])
            before = self.state.average.get(name, 0.0)
            self.state.average[name] = before + (value - before) / count

    def violation(self, name: str) -> float:
        """How far the reward's mean is on the wrong side of its threshold; 0 before any was seen."""
        mean = self.state.means.get(name)
        return 0.0 if mean is None else self.constraints[name].violation(mean)

    def state_dict(self) -> dict[str, Any]:
        return {
            "constraints": {name: [c.kind, c.threshold] for name, c in self.constraints.items()},
            **vars(self.state),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Raises ValueError where it is the state of other constraints."""
        ours = self.state_dict()["constraints"]
        if saved.get("constraints") != ours:
            raise ValueError(
                f"the multipliers of the checkpoint are those of {saved.get('constraints')}, not of {ours}"
            )
        self.state = _State(**{key: value for key, value in saved.items() if key != "constraints"})
