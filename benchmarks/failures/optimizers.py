"""Optimizers, going wrong: small networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from curves import SEEDS, Rows, curve
from torch import Tensor
from torch.nn import functional

from trimtab.pipelines.algorithms.optimizers.frugal import Frugal
from trimtab.pipelines.algorithms.optimizers.m_fac import MFac

INPUTS, HIDDEN, CLASSES, BATCH = 16, 64, 8, 16
WRONG = 0.1  # of the labels
Weights = list[Tensor]  # of the two layers
Make = Callable[[Iterable[Any]], torch.optim.Optimizer]


def metrics() -> Rows:
    """A rate too high, weight decay whose box cuts into a pretrained layer, M-FAC at ten times its rate."""
    rows = []
    panel, told = "a learning rate that is too high", "loss on rows held out"
    for rate in (3e-3, 3e-2, 0.1):
        losses = [learned(seed, adamw(rate), 200)[0] for seed in range(SEEDS)]
        rows.append(curve(panel, "step", told, f"AdamW, rate {rate:g}", np.mean(losses, 0)))
    panel = "Lion's weight decay draws a pretrained layer in"
    for decay in (0.1, 3.0, 10.0):
        losses = [learned(seed, lion(1e-3, decay), 200, pretrained(seed))[0] for seed in range(SEEDS)]
        box = np.mean([decay * max(weight.abs().max() for weight in pretrained(seed)) for seed in range(SEEDS)])
        rows.append(curve(panel, "step", told, f"decay {decay:g}: box {box:.2g} at the start", np.mean(losses, 0)))
    panel = "M-FAC at ten times its rate"
    for rate in (1e-3, 3e-3, 1e-2):
        losses = [learned(seed, m_fac(rate), 150)[0] for seed in range(SEEDS)]
        rows.append(curve(panel, "step", told, f"rate {rate:g}", np.mean(losses, 0)))
    return rows


def adamw(rate: float) -> Make:
    return lambda weights: torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)


def lion(rate: float, decay: float) -> Make:
    """FRUGAL with moments everywhere, which is Lion."""
    return lambda weights: Frugal(weights, lr=rate, density=1.0, inner="lion", weight_decay=decay)


def m_fac(rate: float) -> Make:
    return lambda weights: MFac(weights, lr=rate, gradients=64)


class Task:
    """Labels of normal inputs by a teacher, a network of the same shape, some of them wrong."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.teacher = [3.0 * weight for weight in self.network()]

    def network(self) -> Weights:
        shapes = pairwise((INPUTS, HIDDEN, CLASSES))
        return [torch.randn(shape, generator=self.generator) / shape[0] ** 0.5 for shape in shapes]

    def rows(self, count: int) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(count, INPUTS, generator=self.generator)
        labels = logits(self.teacher, inputs).argmax(1)
        wrong = torch.rand(count, generator=self.generator) < WRONG
        return inputs, torch.where(wrong, torch.randint(CLASSES, (count,), generator=self.generator), labels)


def logits(weights: Weights, inputs: Tensor) -> Tensor:
    return torch.tanh(inputs @ weights[0]) @ weights[1]


def learned(seed: int, make: Make, steps: int, start: Weights | None = None) -> tuple[list[float], Weights]:
    """Loss on rows held out before every step, and the weights at the end."""
    task = Task(seed)
    held_out = task.rows(1000)
    weights = [weight.clone().requires_grad_() for weight in start or task.network()]
    optimizer = make(weights)
    losses = []
    for _ in range(steps):
        with torch.no_grad():
            losses.append(functional.cross_entropy(logits(weights, held_out[0]), held_out[1]).item())
        inputs, labels = task.rows(BATCH)
        optimizer.zero_grad()
        functional.cross_entropy(logits(weights, inputs), labels).backward()
        optimizer.step()
    return losses, [weight.detach() for weight in weights]


@cache
def pretrained(seed: int) -> Weights:
    """A network that has learned the task of that seed."""
    return learned(seed, adamw(1e-2), 1500)[1]
