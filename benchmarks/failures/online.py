"""Online methods, going wrong: bandits."""

from __future__ import annotations

import numpy as np
import torch
from curves import Rows, curve

from trimtab.pipelines.algorithms import tabular
from trimtab.pipelines.trainers.rollouts import group_advantages


def metrics() -> Rows:
    """A rate too high, many steps on a rollout, groups whose answers are all right."""
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
