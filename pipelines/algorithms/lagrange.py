"""Lagrange multipliers that hold rewards at thresholds while a policy is trained.

Moskovitz et al. 2023 (https://arxiv.org/abs/2310.04373), sections 4 and 5: max_pi min_mu v_0 + sum_i mu_i (v_i -
theta_i), where v_0 is the task's value and v_i the mean of reward i. The policy is trained on mixed advantages,
`weights()`; the multipliers go down the gradient, so that one grows while its constraint is violated.

Signs: a multiplier of `at_least` and `at_most` is never negative and its reward's weight is + or - the multiplier;
one of `equal` may be either.

Parametrisations (`raw` is what is learned, N the number of constraints):

    bounded    s = sigmoid(raw), tanh(raw) for `equal`; A = (N - sum s) A_0 + sum +-s A_i, the paper's eq. 4.4. In
               units of the task lambda_i = s_i / (N - sum s), which is below (1 + sum lambda) / N: thresholds that
               need more are not reached, and a warning says so
    softplus   lambda = log(1 + e^raw), raw itself for `equal`; A = A_0 + sum +-lambda A_i
    projected  lambda = max(0, raw), raw for `equal`; A as for softplus
    log        lambda = e^raw up to `cap`; A = (A_0 + sum +-lambda A_i) / (1 + sum lambda), as in safe-rlhf; no `equal`
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

NEAR = 0.05  # of a limit: what warnings are about
WINDOW = 40  # steps that a warning looks back on


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
    """How multipliers are learned: by descent with `learning_rate`, `momentum` and a gradient of norm `max_grad_norm`

    at most, once for each optimizer step of the policy (the paper's values are the defaults), after `delay` steps.

    `initial` is where the multipliers begin (0.5; 0 for `equal`); `cap` ends unbounded ones. `smoothing` in [0, 1) is
    the weight of the past in the means that they see. `proportional` adds that much of the violation to `raw` for the
    moment, which makes a PI controller (Stooke et al. 2020, arXiv 2007.03964); `penalty` adds it to lambda, as the
    augmented Lagrangian does; `averaging` in [0, 1) mixes by the multipliers' moving average with that decay.
    """

    parametrization: Literal["bounded", "softplus", "projected", "log"] = "bounded"
    learning_rate: float = 0.1
    momentum: float = 0.1
    max_grad_norm: float = 0.5
    delay: int = 0
    initial: float | None = None
    cap: float | None = None
    smoothing: float = 0.0
    proportional: float = 0.0
    penalty: float = 0.0
    averaging: float = 0.0

    def __post_init__(self):
        for name in ("momentum", "smoothing", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("delay", "proportional", "penalty"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        bounded = self.parametrization == "bounded"
        if self.initial is not None and (self.initial < 0 or (bounded and self.initial >= 1)):
            raise ValueError(f"initial must be at least 0{' and below 1' if bounded else ''}, got {self.initial}")
        if bounded and (self.cap is not None or self.penalty):
            raise ValueError("cap and penalty are for unbounded multipliers: choose another parametrization")


@dataclass
class _State:
    """Everything that a run has to find again; all numbers are float64, which JSON keeps exactly."""

    raw: dict[str, float]
    velocity: dict[str, float]
    means: dict[str, float] = field(default_factory=dict)
    average: dict[str, float] = field(default_factory=dict)
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
        self.state = _State(
            {name: self._start(c) for name, c in self.constraints.items()}, dict.fromkeys(constraints, 0.0)
        )

    def _start(self, constraint: Constraint) -> float:
        equal, kind = constraint.kind == "equal", self.settings.parametrization
        value = self.settings.initial if self.settings.initial is not None else 0.0 if equal else 0.5
        if kind == "projected" or (equal and kind == "softplus"):
            return value
        if kind == "bounded":
            tiny = max(value, 1e-6)
            return math.atanh(value) if equal else math.log(tiny / (1 - tiny))
        return math.log(math.expm1(max(value, 1e-6))) if kind == "softplus" else math.log(max(value, 1e-6))

    def _value(self, constraint: Constraint, raw: float) -> tuple[float, float]:
        """The multiplier and its derivative by `raw`."""
        equal, kind = constraint.kind == "equal", self.settings.parametrization
        if kind == "bounded":
            value = math.tanh(raw) if equal else _sigmoid(raw)
            return value, 1 - value * value if equal else value * (1 - value)
        if kind == "log":
            value = math.exp(min(raw, 50.0))
            return value, value
        if kind == "softplus" and not equal:
            return (raw if raw > 30 else math.log1p(math.exp(raw))), _sigmoid(raw)
        return (raw if equal else max(0.0, raw)), 1.0

    def values(self) -> dict[str, float]:
        """The multipliers: s if bounded, otherwise lambda."""
        found = {}
        for name, constraint in self.constraints.items():
            violation = self._violation(name)
            value, _ = self._value(constraint, self.state.raw[name] + self.settings.proportional * violation)
            if self.settings.averaging and name in self.state.average:
                value = self.state.average[name]
            if self.settings.penalty:
                value += self.settings.penalty * violation
                value = value if constraint.kind == "equal" else max(0.0, value)
            cap = self.settings.cap
            found[name] = value if cap is None else max(-cap, min(cap, value))
        return found

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
        state.steps += 1
        state.history = [*state.history, {name: self._violation(name) for name in self.constraints}][-WINDOW:]
        if state.steps > settings.delay:
            gradient = {name: self._value(constraint, state.raw[name])[1] * self._violation(name)
                        for name, constraint in self.constraints.items()}  # fmt: skip
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
        for name, constraint in self.constraints.items():
            value, _ = self._value(constraint, state.raw[name])
            before = state.average.get(name, value)
            state.average[name] = settings.averaging * before + (1 - settings.averaging) * value

    def _violation(self, name: str) -> float:
        mean = self.state.means.get(name)
        return 0.0 if mean is None else self.constraints[name].violation(mean)

    def warnings(self) -> dict[str, str]:
        """What is wrong with a run, by a name for each kind of trouble; looked at over the last steps."""
        found = {}
        if len(self.state.history) < WINDOW:
            return found
        values, effective, count = self.values(), self.effective(), len(self.constraints)
        for name, constraint in self.constraints.items():
            violations = [row[name] for row in self.state.history]
            violated = all(v > 0 for v in violations) or (
                constraint.kind == "equal" and all(v < 0 for v in violations)
            )
            if self.settings.parametrization == "bounded":
                limit = (1 + sum(effective.values())) / count
                if violated and abs(effective[name]) > (1 - NEAR) * limit:
                    found[f"{name}/limit"] = (
                        f"{name}: the multiplier is at the end of what bounded ones can represent, lambda "
                        f"{effective[name]:.3g} of {limit:.3g}, and the reward is still {abs(violations[-1]):.3g} off "
                        "its threshold. Move the threshold, or set `multipliers: {parametrization: softplus}`"
                    )
                elif violated and abs(values[name]) > 1 - NEAR:
                    found[f"{name}/saturated"] = f"{name}: the multiplier is saturated, at {values[name]:.3f}"
            elif violated and self.settings.cap is not None and abs(values[name]) > (1 - NEAR) * self.settings.cap:
                found[f"{name}/saturated"] = f"{name}: the multiplier is at its cap, {self.settings.cap:g}"
            crossings = sum(a * b < 0 for a, b in pairwise(violations))
            half = WINDOW // 2
            early, late = (max(map(abs, part)) for part in (violations[:half], violations[half:]))
            if 4 <= crossings <= half and late > early and late > NEAR * abs(constraint.threshold):
                found[f"{name}/oscillates"] = (
                    f"{name}: the reward swings about its threshold by {late:.3g}, and no less than before: lower "
                    "`multipliers.learning_rate`, or set `averaging` or `proportional`"
                )
        return found

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


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
