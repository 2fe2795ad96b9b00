"""The arithmetic of passes that train nothing: on an accelerator that of a training in bfloat16, elsewhere float32.

    model = rounded(model)
    with passing(model.device):
        model(...)

trl trains with `bf16: true`, where weights are kept in float32 and matrix products are of bfloat16, summed in float32.
A pass that trains nothing does the same, so that its log-probabilities are those of the training's own forward pass;
and since products would round the weights of its decoder each time, they are kept rounded: half the memory, the same
numbers. `TRIMTAB_PRECISION=float32` asks for float32 throughout, and `in_float32` for what is inside of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

ASKED = "TRIMTAB_PRECISION"  # float32, for passes that train nothing
_in_float32 = ContextVar("in_float32", default=False)


def in_bfloat16(device: torch.device) -> bool:
    """Whether passes that train nothing compute in bfloat16 on this device."""
    from transformers.utils import is_torch_bf16_gpu_available

    return device.type != "cpu" and os.environ.get(ASKED) != "float32" and is_torch_bf16_gpu_available()


def passing(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """What a pass that trains nothing runs in."""
    is_rounded = in_bfloat16(device) and not _in_float32.get()
    return torch.autocast(device.type, torch.bfloat16) if is_rounded else contextlib.nullcontext()


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """Passes inside compute in float32, as the training does that they belong to."""
    token = _in_float32.set(True)
    try:
        yield
    finally:
        _in_float32.reset(token)


def rounded(model: Any, device: torch.device) -> Any:
    """The model, whose decoder keeps the weights of its matrix products as passes on this device read them.

    Norms, embeddings and heads stay as they are, and so do quantised weights. It is for models that are not trained.
    """
    if in_bfloat16(device):
        round_products(model)
    return model


def round_products(model: Any) -> None:
    """Keeps the weights of the decoder's matrix products in bfloat16, to which autocast would round them each time."""
    for module in model.base_model.modules():
        if type(module) is nn.Linear and module.weight.dtype == torch.float32:
            module.to(torch.bfloat16)


def exact(head: nn.Module | None, device: torch.device) -> None:
    """Makes a linear head of scores compute in its own precision, also inside `passing`.

    Scores of 3.141 and 3.149 are one number in bfloat16, and answers that differ would be equal.
    """
    if not (isinstance(head, nn.Linear) and in_bfloat16(device)):
        return
    forward: Callable[[Tensor], Tensor] = head.forward

    def in_own_precision(states: Tensor) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            return forward(states.to(head.weight.dtype))

    head.forward = in_own_precision
