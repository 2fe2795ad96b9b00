"""What going wrong looks like in the metrics of each method: the curves of the method pages' pictures.

    python benchmarks/failures.py            # two minutes on one core; save=yes keeps the curves

Small exact problems and networks, of the programs beside this one, in settings that are wrong in one thing each. Every
panel has the curve of a metric that a run logs, or of what that metric stands for, beside one that is as it should be;
means over seeds. `make docs-numbers` draws them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import apo_tabular
import constrained_bandit
import constrained_scales
import momentum_worlds
import numpy as np
import stored_numbers
import torch

from trimtab.pipelines.algorithms import curation, tabular
from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers, MultiplierSettings
from trimtab.pipelines.trainers.rollouts import group_advantages

SEEDS = 10
SHOWN = 120  # points of a curve at most
Rows = list[dict[str, Any]]


def curve(panel: str, x: str, y: str, name: str, values: Iterable[float] | Any, start: int = 0) -> dict[str, Any]:
    """A row of a picture's table: the mean curve, thinned to what can be seen. `x` counts from `start`."""
    values = np.asarray(values, dtype=float)
    places = np.unique(np.linspace(0, len(values) - 1, min(SHOWN, len(values))).round().astype(int))
    return {
        "panel": panel,
        "x": x,
        "y": y,
        "curve": name,
        "at": (places + start).tolist(),
        "values": values[places].tolist(),
    }


def momentum() -> Rows:
    rows = []
    panel = "cyclic preferences: momentum drives the policy away"
    start = tabular.normalise(1e-3 * np.array([1.0, -0.5, -0.5]))
    for alpha in (0.0, 0.3, 0.6):
        policies = tabular.rounds(
            start, lambda _, now: tabular.win_probability(apo_tabular.ROCK_PAPER_SCISSORS, now), 2.0, alpha, 40
        )
        far = np.linalg.norm(policies - tabular.normalise(np.zeros(3)), axis=-1)
        rows.append(curve(panel, "round", "distance from the balance", f"momentum {alpha:g}", far))
    panel = "a judge that sees one aspect"
    for alpha in (0.0, 0.6):
        judged, truth = (
            np.mean(paths, 0) for paths in zip(*(led_astray(seed, alpha) for seed in range(SEEDS)), strict=True)
        )
        rows.append(curve(panel, "round", "reward", f"judge, momentum {alpha:g}", judged))
        rows.append(curve(panel, "round", "reward", f"true, momentum {alpha:g}", truth))
    return rows + overfitted()


def led_astray(seed: int, alpha: float, rounds: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """The judge's and the true reward after each round: the truth wants one deviation of what the judge sees."""
    judge = np.random.default_rng(seed).standard_normal(200)
    policies = np.exp(tabular.rounds(tabular.normalise(np.zeros(200)), lambda *_: judge, 5.0, alpha, rounds))
    return policies @ judge, policies @ -np.square(judge - 1.0)


def overfitted(epochs: int = 60) -> Rows:
    """One round of DPO on 64 pairs: the loss on them, on others, and the true reward, by epoch."""
    setting = momentum_worlds.Setting(SEEDS, 64, 1, 1, 0.1, (0.01,), 0, 0)
    worlds = momentum_worlds.Worlds(SEEDS, 0)
    with torch.no_grad():
        pairs, others = (momentum_worlds.drawn(worlds, worlds.start, setting, number) for number in (0, 1))
    weights, everything = worlds.start, slice(None)
    losses, unseen, reward = [], [], []
    for _ in range(epochs):
        with torch.no_grad():
            losses.append(pairs.loss(weights, everything, setting.beta).mean().item())
            unseen.append(others.loss(weights, everything, setting.beta).mean().item())
            reward.append(worlds.value(weights).mean().item())
        weights = momentum_worlds.trained(weights, pairs, setting, setting.beta, 0.01, early=False)
    panel = "a round that overfits its pairs"
    named = {"loss, its pairs": losses, "loss, pairs held out": unseen, "true reward": reward}
    return [
        curve(panel, "epoch", "loss, and share of the best reward", name, values) for name, values in named.items()
    ]


def constrained() -> Rows:
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


def curated() -> Rows:
    rows = []
    panel = "collapse: 200 answers kept a round, K = 4"
    for name, real, scale in (
        ("no real data", 0.0, 1.0),
        ("a fifth real", 0.2, 1.0),
        ("no real data, at random", 0.0, 0.0),
    ):
        entropies = np.mean([kept_few(seed, real, scale) for seed in range(SEEDS)], 0)
        rows.append(curve(panel, "round", "entropy of the answers (nats)", name, entropies))
    panel = "a reward that sees one aspect only"
    for name, real in (("no real data", 0.0), ("half real", 0.5)):
        seen, truth = (
            np.mean(values, 0) for values in zip(*(one_aspect(seed, real) for seed in range(SEEDS)), strict=True)
        )
        rows.append(curve(panel, "round", "reward", f"the reward, {name}", seen))
        rows.append(curve(panel, "round", "reward", f"true, {name}", truth))
    panel = "a reward too small to choose by"
    for scale in (0.1, 1.0, 8.0):
        gains, shares = zip(*(chosen_by(seed, scale) for seed in range(SEEDS)), strict=True)
        named = f"reward x {scale:g}: entropy_share {np.mean(shares):.2f}"
        rows.append(curve(panel, "round", "gain of the reward (its own sd)", named, np.mean(gains, 0)))
    return rows


def answers(seed: int, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """p_0 (count,) and two independent qualities (2, count)."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(count, 5.0)), rng.standard_normal((2, count))


def kept_few(seed: int, real: float, scale: float, rounds: int = 30, kept: int = 200) -> list[float]:
    start, (reward, _) = answers(seed)
    rng = np.random.default_rng(seed)
    p, entropies = start, [curation.entropy(start)]
    for _ in range(rounds):
        curated_p = curation.retrain(p, scale * reward, 4)
        p = real * start + (1 - real) * rng.multinomial(kept, curated_p) / kept
        entropies.append(curation.entropy(p))
    return entropies


def one_aspect(seed: int, real: float, rounds: int = 12) -> tuple[list[float], list[float]]:
    """The first quality is the reward; the truth is best half a deviation above its mean."""
    start, qualities = answers(seed)
    truth = -np.square(qualities[0] - 0.5)
    p = start
    path = [p]
    for _ in range(rounds):
        p = curation.retrain(p, qualities[0], 4, (1 - real) / real if real else np.inf, start)
        path.append(p)
    seen = [float(each @ qualities[0]) for each in path]
    return seen, [float(each @ truth) for each in path]


def chosen_by(seed: int, scale: float, rounds: int = 10) -> tuple[list[float], float]:
    start, (reward, _) = answers(seed)
    rng = np.random.default_rng(seed)
    draws = rng.choice(len(start), (200, 4), p=start)
    share = np.mean(
        [curation.entropy(curation.probabilities(scale * reward[draw], 1.0)) / np.log(4) for draw in draws]
    )
    p, gains = start, [0.0]
    for _ in range(rounds):
        p = curation.retrain(p, scale * reward, 4, 4.0, start)
        gains.append(float((p - start) @ reward))
    return gains, float(share)


def online() -> Rows:
    rows = []
    panel = "a learning rate that is too high"
    for rate in (0.3, 3.0, 30.0):
        shares = learned(rate, 1, "clip")
        rows.append(curve(panel, "rollout", "share of the way to the best", f"rate {rate:g}", shares, 1))
    panel = "16 steps on each rollout, rate 10"
    for name, held in (("nothing holds them", ""), ("clip 0.2", "clip"), ("proximal: 1", "proximal")):
        rows.append(curve(panel, "rollout", "share of the way to the best", name, learned(10.0, 16, held), 1))
    panel = "groups whose answers are all right"
    noises = np.geomspace(1e-4, 1.0, 41)
    for name, floor in (("group, trl's 1e-4", 1e-4), ("std_floor: 0.05", 0.05)):
        values = [largest_advantage(noise, floor) for noise in noises]
        row = curve(panel, "standard deviation of the reward in a group", "largest advantage", name, values)
        rows.append({**row, "at": noises.tolist()})
    return rows


def learned(rate: float, steps: int, held: str, rollouts: int = 100, seeds: int = 100, group: int = 8) -> np.ndarray:
    """The expected reward after each rollout, of policies (seeds, 12) that learn from groups of noisy answers."""
    rng = np.random.default_rng(0)
    reward, logits = rng.standard_normal((seeds, 12)), np.zeros((seeds, 12))
    rows, best, start = np.arange(seeds)[:, None], reward.max(1), reward.mean(1)
    shares = []
    for _ in range(rollouts):
        before = tabular.normalise(logits)
        drawn = (rng.random((seeds, group, 1)) > np.exp(before).cumsum(1)[:, None, :-1]).sum(-1)
        seen = reward[rows, drawn] + rng.standard_normal((seeds, group))
        advantage = seen - seen.mean(1, keepdims=True)
        for _ in range(steps):
            policy = tabular.normalise(logits)
            log_ratio = (policy - before)[rows, drawn]
            pull = np.exp(log_ratio) * (advantage - (log_ratio if held == "proximal" else 0.0))
            if held == "clip":
                pull = pull * (advantage * log_ratio < np.abs(advantage) * np.log(1.2))
            gradient = np.zeros_like(logits)
            np.add.at(gradient, (rows, drawn), pull / group)
            logits = logits + rate / steps * (gradient - gradient.sum(1, keepdims=True) * np.exp(policy))
        shares.append(np.mean(((np.exp(tabular.normalise(logits)) * reward).sum(1) - start) / (best - start)))
    return np.array(shares)


def largest_advantage(noise: float, floor: float) -> float:
    """Of groups of 32 whose rewards differ by noise alone: the mean of the largest."""
    rewards = 1.0 + noise * torch.randn(400 * 32, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centred = group_advantages(rewards, 32, "none").view(-1, 32)
    return float((centred / (rewards.view(-1, 32).std(1, keepdim=True) + floor)).max(1).values.mean())


def main(save: str = "no") -> None:
    torch.set_num_threads(1)
    curves = {"momentum": momentum(), "constrained": constrained(), "curated": curated(), "online": online()}
    for title, rows in curves.items():
        for row in rows:
            print(f"{title}: {row['panel']}: {row['curve']}: {row['values'][0]:.3g} to {row['values'][-1]:.3g}")
    if save == "yes":
        stored_numbers.store("failures", curves, seeds=f"{SEEDS}", code=stored_numbers.imported())


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
