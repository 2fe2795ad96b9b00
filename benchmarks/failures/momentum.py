"""Momentum between rounds, going wrong: exact problems and small networks."""

from __future__ import annotations

import apo_tabular
import momentum_worlds
import numpy as np
import torch
from curves import SEEDS, Rows, curve

from trimtab.pipelines.algorithms import tabular


def metrics() -> Rows:
    """The policy circles, the judge is led astray, a round overfits its pairs."""
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
