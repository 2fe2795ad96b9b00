"""What a class of optimizers does, seen in steps on a few numbers: whether it can step, and by each number alone.

Where FSDP or ZeRO have split the weights, every rank steps its share. That is the same optimizer where each number
moves by its own gradients alone (AdamW, Lion, schedule-free), and another where whole matrices count (Muon, SOAP,
Adafactor) or all weights together (Prodigy). An optimizer that begins with those only after STEPS steps is not found
out.

Those of FSDP2 are tensors of torch's own, DTensor, which does not know every operation: some optimizers that treat
each number by itself step many tensors at once by one that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

STEPS = 30  # more than those after which some begin to look at whole matrices
SHAPE, LENGTH = (12, 8), 10
RATE, CLOSE = 1.0, 1e-5


@dataclass(frozen=True)
class Stepped:
    """What was seen: `by_element`, whether it treats each number by itself; `kept`, numbers for each weight; `counts`,
    whether it is another optimizer where `step` is called for one parameter at a time, as ZeRO-3 does.
    """

    by_element: bool
    kept: float
    counts: bool


def look(make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]) -> Stepped:
    """What an optimizer does that `make` gives for groups of parameters. What it raises comes through."""
    start, gradients = _way()
    whole, kept = _walk(make, start, gradients)
    same = True
    for rank in range(2):
        share, _ = _walk(make, _share(start, rank), [_share(step, rank) for step in gradients])
        pairs = zip(_share(whole, rank), share, strict=True)
        same = same and all(torch.allclose(a, b, rtol=CLOSE, atol=CLOSE * RATE) for a, b in pairs)
    return Stepped(same, kept, _counts(make, start, gradients, whole))


def _counts(
    make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    start: Sequence[Tensor],
    gradients: Sequence[Sequence[Tensor]],
    whole: Sequence[Tensor],
) -> bool:
    """Whether steps of one parameter after another, in groups without the others, end elsewhere than at `whole`."""
    try:
        one_by_one, _ = _walk(make, start, gradients, at_once=False)
    except Exception:  # whatever a stranger's class raises of a group without parameters
        return True
    return not all(torch.allclose(a, b, rtol=CLOSE, atol=CLOSE * RATE) for a, b in zip(whole, one_by_one, strict=True))


def split_step_fails(make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]) -> str:
    """What torch says where an optimizer cannot step the weights that FSDP2 has split, "" where it can.

    By a process group of this process alone, which must have none.
    """
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    start, gradients = _way()
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        split = [[distribute_tensor(part, mesh, [Shard(0)]) for part in parts] for parts in (start, *gradients)]
        try:
            _walk(make, split[0], split[1:])
        except RuntimeError as error:  # of the optimizer's steps alone, such as an operation that DTensor lacks
            return str(error).strip().partition("\n")[0]
    finally:
        distributed.destroy_process_group()
    return ""


def _way() -> tuple[list[Tensor], list[list[Tensor]]]:
    """A matrix and a vector, and gradients of each for every step."""
    drawn = torch.Generator().manual_seed(0)
    start = [torch.randn(SHAPE, generator=drawn), torch.randn(LENGTH, generator=drawn)]
    slope = [torch.randn(part.shape, generator=drawn) for part in start]
    return start, [[part + torch.randn(part.shape, generator=drawn) for part in slope] for _ in range(STEPS)]


def _share(parts: Sequence[Tensor], rank: int) -> list[Tensor]:
    """The matrix and the vector as one of two ranks has them: half of each, flat."""
    return [part.flatten().chunk(2)[rank] for part in parts]


def _walk(
    make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    start: Sequence[Tensor],
    gradients: Sequence[Sequence[Tensor]],
    at_once: bool = True,
) -> tuple[list[Tensor], float]:
    """The weights after steps along the gradients, and what was kept of each; `at_once`, or a parameter at a time."""
    values = [torch.nn.Parameter(part.clone()) for part in start]
    matrix, vector = values  # in groups as a trainer makes them
    groups = [{"params": [matrix], "weight_decay": 0.01}, {"params": [vector], "weight_decay": 0.0}]
    optimizer = make(groups)
    if callable(getattr(optimizer, "train", None)):
        optimizer.train()
    for step in gradients:
        for value, gradient in zip(values, step, strict=True):
            value.grad = gradient.clone()
        for stepped in [values] if at_once else [[value] for value in values]:
            for group, value in zip(optimizer.param_groups, values, strict=True):
                group["params"] = [value] if any(value is one for one in stepped) else []
            optimizer.step()
    for group, value in zip(optimizer.param_groups, values, strict=True):
        group["params"] = [value]
    states = optimizer.state_dict()["state"].values()
    numbers = sum(entry.numel() for state in states for entry in state.values() if torch.is_tensor(entry))
    return [value.detach() for value in values], numbers / sum(value.numel() for value in values)
