"""Look-ahead momentum, and a proximal term in the place of the clip, on a bandit whose rewards are known exactly.

    python benchmarks/policy_gradients.py seeds=10           # ten minutes on one core; save=yes keeps the numbers
    python benchmarks/policy_gradients.py seeds=5 steps=100

A policy with 192 weights, softmax of a linear function of 16 features, on 64 contexts with 12 answers each; the
rewards of answers are normal, and a reward that is seen has noise of 1. A rollout is 8 contexts with 8 answers each,
advantages are a reward minus its group's mean, as GRPO's without their scale. Printed is the exact expected reward of
the policy that is kept, above the start's and as a share of what the best such policy reaches: means over seeds with
standard errors, each way at the best of five rates (chosen by the mean over seeds) that decays to 0, with the
difference to the first way, paired by seed.

First one step for each rollout: Adam, steps along the gradient of equal length, those with momentum, with look-ahead
momentum (igt), and with momentum that is carried along by Hessian-vector products (harpg), for which half of a
rollout, four contexts, is sampled between the last two policies; the other half alone, with plain momentum, is its
control (half). Then several steps for each rollout, by Adam, with the ratio of probabilities clipped at 0.2 (PPO),
free, and held by the KL to the policy that sampled (`proximal`) or by squared differences of log-probabilities
(`distance: squared`): besides the share reached, the rollouts until half of the way and until nine tenths of what one
clipped step a rollout reaches, and the calls of the reward until then, 64 for each rollout (32 for a half).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import numpy as np
import stored_numbers
import torch
from torch import Tensor

from trimtab.pipelines.algorithms.harpg import Harpg
from trimtab.pipelines.algorithms.optimizers.igt import Igt
from trimtab.pipelines.algorithms.target_surrogates import Distance, surrogate

FEATURES, CONTEXTS, ANSWERS, ASKED, GROUP, NOISE = 16, 64, 12, 8, 8, 1.0
ADAM = (0.01, 0.03, 0.1, 0.3, 1.0)
LENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0)  # of a step of all weights

Optimizer = Callable[[list[Tensor], float], torch.optim.Optimizer]


def adam(values: list[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(values, lr=rate)


def adam_of_rl(values: list[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(values, lr=rate, betas=(0.9, 0.99))


def steps_of_length(**keys: float) -> Optimizer:
    return lambda values, rate: Igt(values, lr=rate, **keys)


def by_halves(eta: float, carried: bool) -> Optimizer:
    return lambda values, rate: Harpg(values, lr=rate, eta=eta, carried=carried)


ONE_STEP: dict[str, tuple[Optimizer, tuple[float, ...]]] = {
    "Adam": (adam, ADAM),
    "Adam, betas 0.9, 0.99": (adam_of_rl, ADAM),
    "equal length": (steps_of_length(eta=1.0), LENGTHS),
    "momentum, eta 0.3": (steps_of_length(eta=0.3, look_ahead=False), LENGTHS),
    "igt, eta 0.3": (steps_of_length(eta=0.3), LENGTHS),
    "harpg, eta 0.3": (by_halves(0.3, carried=True), LENGTHS),
    "half, eta 0.3": (by_halves(0.3, carried=False), LENGTHS),
    "momentum, eta 0.1": (steps_of_length(eta=0.1, look_ahead=False), LENGTHS),
    "igt, eta 0.1": (steps_of_length(eta=0.1), LENGTHS),
    "harpg, eta 0.1": (by_halves(0.1, carried=True), LENGTHS),
    "half, eta 0.1": (by_halves(0.1, carried=False), LENGTHS),
}
Loss = Callable[[Tensor, Tensor], Tensor]  # of log ratios and advantages, for each answer


def clipped(log_ratio: Tensor, advantage: Tensor) -> Tensor:
    ratio = log_ratio.exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)


def free(log_ratio: Tensor, advantage: Tensor) -> Tensor:
    return -log_ratio.exp() * advantage


def held(proximal: float, distance: Distance = "kl") -> Loss:
    return lambda log_ratio, advantage: -surrogate(log_ratio, advantage, proximal, distance)


SEVERAL: dict[str, tuple[Loss, int]] = {
    "1 step": (clipped, 1),
    "4 steps, clip 0.2": (clipped, 4),
    "4 steps, free": (free, 4),
    "4 steps, proximal 0.3": (held(0.3), 4),
    "4 steps, proximal 1": (held(1.0), 4),
    "4 steps, squared 0.3": (held(0.3, "squared"), 4),
    "4 steps, squared 1": (held(1.0, "squared"), 4),
    "8 steps, clip 0.2": (clipped, 8),
    "8 steps, free": (free, 8),
    "8 steps, proximal 0.3": (held(0.3), 8),
    "8 steps, proximal 1": (held(1.0), 8),
    "8 steps, squared 0.3": (held(0.3, "squared"), 8),
    "8 steps, squared 1": (held(1.0, "squared"), 8),
}


def main(seeds: str = "20", steps: str = "200", save: str = "no") -> None:
    torch.set_num_threads(1)
    paths = {}
    for name, (make, rates) in ONE_STEP.items():
        paths[name] = best([curves(make, rate, clipped, 1, int(seeds), int(steps)) for rate in rates], rates)
    tables = {"one-step": told(paths)}
    paths = {}
    for name, (loss, inner) in SEVERAL.items():
        paths[name] = best([curves(adam, rate, loss, inner, int(seeds), int(steps)) for rate in ADAM], ADAM)
    tables["several-steps"] = told(paths)
    stored_numbers.show("policy-gradients-on-a-bandit", tables, seeds=f"{seeds}, each a world; {steps} rollouts")


@dataclass
class Rollout:
    """What policies have sampled: contexts, log pi then, answers, advantages; the first axis is of seeds."""

    asked: Tensor
    before: Tensor
    answers: Tensor
    advantages: Tensor

    def loss(self, values: list[Tensor], of_answers: Loss) -> Tensor:
        """The mean loss of each seed's policy as it is now, (seeds,)."""
        now = torch.log_softmax(self.asked @ torch.stack(values), dim=2)
        return of_answers((now - self.before).gather(2, self.answers), self.advantages).mean((1, 2))


@dataclass
class Worlds:
    """Independent seeds, which go side by side: tensors begin with one axis for them."""

    draws: list[torch.Generator]
    features: Tensor
    rewards: Tensor

    def of_seed(self, seed: int) -> Worlds:
        one = slice(seed, seed + 1)
        return Worlds(self.draws[one], self.features[one], self.rewards[one])

    def sampled(self, values: list[Tensor], contexts: int) -> Rollout:
        chosen = torch.stack([torch.randint(CONTEXTS, (contexts,), generator=drawn) for drawn in self.draws])
        asked = self.features.gather(1, chosen.unsqueeze(2).expand(-1, -1, FEATURES))
        before = torch.log_softmax(asked @ torch.stack(values), dim=2).detach()
        answers = torch.stack(
            [
                torch.multinomial(of_seed.exp(), GROUP, True, generator=drawn)
                for of_seed, drawn in zip(before, self.draws, strict=True)
            ]
        )
        means = self.rewards.gather(1, chosen.unsqueeze(2).expand(-1, -1, ANSWERS)).gather(2, answers)
        seen = means + NOISE * normal(self.draws, contexts, GROUP)
        return Rollout(asked, before, answers, seen - seen.mean(2, keepdim=True))


def curves(make: Optimizer, rate: float, loss: Loss, inner: int, seeds: int, steps: int) -> np.ndarray:
    """The share of the way that the kept policy has gone after each rollout, (seeds, rollouts)."""
    draws = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
    features = normal(draws, CONTEXTS, FEATURES) / FEATURES**0.5
    rewards = normal(draws, CONTEXTS, ANSWERS)
    worlds = Worlds(draws, features, rewards)
    values = [torch.nn.Parameter(torch.zeros(FEATURES, ANSWERS, dtype=torch.float64)) for _ in draws]
    alone = make in (adam, adam_of_rl)  # each number by itself: one for all seeds is the same, and quicker
    optimizers = [make(values, rate)] if alone else [make([value], rate) for value in values]
    start, most = rewards.mean((1, 2)), reachable(features, rewards)
    shares = []
    for step in range(steps):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            getattr(optimizer, "train", lambda: None)()
        if isinstance(optimizers[0], Harpg):
            for seed, optimizer in enumerate(optimizers):
                optimizer.step(partial(half_sampled, worlds.of_seed(seed), values[seed : seed + 1]))
        else:
            rollout = worlds.sampled(values, ASKED)
            for _ in range(inner):
                gradients = torch.autograd.grad(rollout.loss(values, loss).sum(), values)
                for value, gradient in zip(values, gradients, strict=True):
                    value.grad = gradient
                for optimizer in optimizers:
                    optimizer.step()
        for optimizer in optimizers:
            getattr(optimizer, "eval", lambda: None)()
        value = (torch.softmax(features @ torch.stack(values).detach(), dim=2) * rewards).sum(2).mean(1)
        shares.append((value - start) / (most - start))
    return torch.stack(shares, dim=1).numpy()


def half_sampled(world: Worlds, values: list[Tensor]) -> Tensor:
    """The loss of half a rollout, whose gradient and Hessian are those of the expected reward but for noise."""
    return world.sampled(values, ASKED // 2).loss(values, free).sum()


def normal(draws: list[torch.Generator], *shape: int) -> Tensor:
    return torch.stack([torch.randn(*shape, generator=drawn, dtype=torch.float64) for drawn in draws])


def reachable(features: Tensor, rewards: Tensor) -> Tensor:
    """The expected reward of the best policies, (seeds,), by exact gradients."""
    shape = (len(features), FEATURES, ANSWERS)
    weights = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        value = (torch.softmax(features @ weights, dim=2) * rewards).sum(2).mean(1)
        (-value.sum()).backward()
        optimizer.step()
    return value.detach()


def best(of_rates: list[np.ndarray], rates: tuple[float, ...]) -> tuple[np.ndarray, float]:
    """The curves at the rate that ends highest, and that rate."""
    ends = [paths[:, -1].mean() for paths in of_rates]
    return of_rates[int(np.argmax(ends))], rates[int(np.argmax(ends))]


def told(paths: dict[str, tuple[np.ndarray, float]]) -> list[dict[str, Any]]:
    """A row of each way; differences to the first are paired by seed."""
    first = next(iter(paths.values()))[0]
    level = 0.9 * first[:, -1].mean()
    rows = []
    for name, (way, rate) in paths.items():
        gaps = "" if way is first else (way[:, -1] - first[:, -1]).tolist()
        half, nearly = (rollouts(way, share) for share in (level / 1.8, level))
        row = {"way": name, "best rate": f"{rate:g}", "reached": way[:, -1].tolist(), "above the first": gaps}
        asked = ASKED // 2 if name.startswith("half") else ASKED
        calls = "" if nearly is None else f"{nearly * asked * GROUP:,}"
        row |= {
            "rollouts to half": half or "never",
            f"to {level:.2f}": nearly or "never",
            "reward calls until then": calls,
        }
        rows.append(row)
    return rows


def rollouts(paths: np.ndarray, level: float) -> int | None:
    """After how many rollouts the mean over seeds has come to a level, if it has."""
    there = np.flatnonzero(paths.mean(0) >= level)
    return int(there[0]) + 1 if len(there) else None


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
