"""What a class of optimizers does, seen in steps on a few numbers: whether it can step, and by each number alone.

Where FSDP or ZeRO have split the weights, every rank steps its share. That is the same optimizer where each number
moves by its own gradients alone (AdamW, Lion, schedule-free), and another where whole matrices count (Muon, SOAP,
Adafactor) or all weights together (Prodigy). An optimizer that begins with those only after STEPS steps is not found
out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

STEPS = 30  # more than those after which some begin to look at whole matrices
SHAPE, LENGTH = (12, 8), 10
RATE, CLOSE = 1.0, 1e-5


@dataclass(frozen=True)
class Stepped:
    """Whether it treats each number by itself, and how many numbers it keeps of each weight."""

    by_element: bool
    kept: float


def look(make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]) -> Stepped:
    """What an optimizer does that `make` gives for groups of parameters. What it raises comes through."""
    drawn = torch.Generator().manual_seed(0)
    start = [torch.randn(SHAPE, generator=drawn), torch.randn(LENGTH, generator=drawn)]
    slope = [torch.randn(part.shape, generator=drawn) for part in start]
    gradients = [[part + torch.randn(part.shape, generator=drawn) for part in slope] for _ in range(STEPS)]
    whole, kept = _walk(make, start, gradients)
    same = True
    for rank in range(2):
        share, _ = _walk(make, _share(start, rank), [_share(step, rank) for step in gradients])
        pairs = zip(_share(whole, rank), share, strict=True)
        same = same and all(torch.allclose(a, b, rtol=CLOSE, atol=CLOSE * RATE) for a, b in pairs)
    return Stepped(same, kept)


def _share(parts: Sequence[Tensor], rank: int) -> list[Tensor]:
    """The matrix and the vector as one of two ranks has them: half of each, flat."""
    return [part.flatten().chunk(2)[rank] for part in parts]


def _walk(
    make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    start: Sequence[Tensor],
    gradients: Sequence[Sequence[Tensor]],
) -> tuple[list[Tensor], float]:
    """The weights after steps along the gradients, and what was kept of each."""
    values = [torch.nn.Parameter(part.clone()) for part in start]
    matrix, vector = values  # in groups as a trainer makes them
    groups = [{"params": [matrix], "weight_decay": 0.01}, {"params": [vector], "weight_decay": 0.0}]
    optimizer = make(groups)
    if callable(getattr(optimizer, "train", None)):
        optimizer.train()
    for step in gradients:
        for value, gradient in zip(values, step, strict=True):
            value.grad = gradient.clone()
        optimizer.step()
    states = optimizer.state_dict()["state"].values()
    numbers = sum(entry.numel() for state in states for entry in state.values() if torch.is_tensor(entry))
    return [value.detach() for value in values], numbers / sum(value.numel() for value in values)
