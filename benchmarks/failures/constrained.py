"""Rewards at thresholds, going wrong: exact bandits."""

from __future__ import annotations

from typing import Any

import constrained_bandit
import constrained_scales
import numpy as np
from curves import SEEDS, Rows, curve

from trimtab.pipelines.algorithms import tabular
from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers, MultiplierSettings


def metrics() -> Rows:
    """A bounded multiplier at its end, multipliers that swing, rewards pushed too far."""
    rows = []
    panel = "a bounded multiplier at its end"
    for form in ("bounded", "softplus"):
        violation, lam = zip(*(out_of_reach(seed, form) for seed in range(SEEDS)), strict=True)
        rows.append(curve(panel, "step", "violation, and lambda", f"violation, {form}", np.mean(violation, 0), 1))
        rows.append(curve(panel, "step", "violation, and lambda", f"lambda, {form}", np.mean(lam, 0), 1))
    panel = "multipliers that swing: one run"
    for name, way in (("descent", "descent"), ("proportional: 3", "proportional 3")):
        rows.append(curve(panel, "step", "reward - threshold", name, swinging(3, constrained_bandit.WAYS[way]), 1))
    panel = "pushed too far"
    for name, reward, truth in (pushed(weight) for weight in (1.0, None)):
        rows.append(curve(panel, "step", "reward", f"reward model, {name}", reward, 1))
        rows.append(curve(panel, "step", "reward", f"true, {name}", truth, 1))
    return rows


def out_of_reach(seed: int, form: str, steps: int = 800) -> tuple[list[float], list[float]]:
    """A threshold whose multiplier a bounded one cannot be: violation and lambda after each step."""
    rng = np.random.default_rng(seed)
    log_reference, table = np.log(rng.dirichlet(np.full(12, 5.0))), rng.standard_normal((2, 12))
    target = table @ np.exp(tabular.tilted(log_reference, table, np.array([0.3, 2.5])))
    settings = MultiplierSettings(parametrization=form, learning_rate=0.1, max_grad_norm=10.0)
    rewards = dict(zip("ab", table, strict=True))
    held = {name: Constraint(float(value), "at_least") for name, value in zip("ab", target, strict=True)}
    multipliers = Multipliers(held, settings)
    violations, lambdas = [], []
    for policy in tabular.primal_dual_iterates(log_reference, rewards, multipliers, steps, 0.3):
        violations.append(float(target[1] - table[1] @ np.exp(policy)))
        lambdas.append(multipliers.effective()["b"])
    return violations, lambdas


def swinging(seed: int, settings: dict[str, Any], steps: int = 600) -> list[float]:
    """How far a reward is from its threshold where no KL damps the multiplier."""
    rng = np.random.default_rng(seed)
    log_reference, (task, reward) = np.log(rng.dirichlet(np.full(12, 5.0))), rng.standard_normal((2, 12))
    _, threshold = constrained_bandit.between(task, reward)
    multipliers = Multipliers({"r": Constraint(threshold)}, MultiplierSettings(**settings))
    policies = tabular.primal_dual_iterates(
        log_reference, {"r": reward}, multipliers, steps, 0.3, task=task, strength=0.0
    )
    return [float(np.exp(policy) @ reward - threshold) for policy in policies]


def pushed(weight: float | None, steps: int = 300) -> tuple[str, np.ndarray, np.ndarray]:
    """The calibrated reward models' mean and the true reward, which wants them at 1: by their sum, or held there."""
    rewards, truths = [], []
    for seed in range(SEEDS):
        world = constrained_scales.World.of(seed, 0.1, scaled=False)
        truth = -np.square(world.calibrated - 1.0).sum(0)
        held = {name: Constraint(1.0, "equal") for name in "ab"}
        scores = dict(zip("ab", world.calibrated, strict=True))
        if weight is None:
            policies = list(tabular.primal_dual_iterates(
                world.start, scores, Multipliers(held, constrained_scales.HELD), steps, constrained_scales.RATE,
                strength=world.strength,
            ))  # fmt: skip
        else:
            gains = [weight * world.calibrated.sum(0) * constrained_scales.RATE * step for step in range(1, steps + 1)]
            policies = [tabular.normalise(world.start + gain) for gain in gains]
        rewards.append([float(np.exp(policy) @ world.calibrated.mean(0)) for policy in policies])
        truths.append([float(np.exp(policy) @ truth) for policy in policies])
    return "fixed weights" if weight else "xi at z = 1", np.mean(rewards, 0), np.mean(truths, 0)
