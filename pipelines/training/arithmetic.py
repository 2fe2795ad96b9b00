"""The arithmetic of a training on an accelerator, where trl and transformers leave something to be said."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def settle(trainer: Any) -> None:
    """Halves the frozen reference of a training in bfloat16, and keeps positions exact in one with TF32."""
    for model in (trainer.model, getattr(trainer, "ref_model", None)):
        if model is not None:
            keep_positions_exact(model)
    if trainer.args.bf16 and _is_frozen(trainer):
        from trimtab.rewards._arithmetic import round_products

        round_products(trainer.accelerator.unwrap_model(trainer.ref_model))


def _is_frozen(trainer: Any) -> bool:
    """Whether there is a reference, which no callback moves, and which is whole here."""
    from trimtab.pipelines.trainers.seams.engines import sharding

    there = getattr(trainer, "ref_model", None) is not None
    return there and sharding() is None and not getattr(trainer.args, "sync_ref_model", False)


def keep_positions_exact(model: nn.Module) -> None:
    """Lets rotary embeddings multiply positions in whole float32, also where other products are of TF32.

    transformers before 5.23 does it by a matrix product, and TF32 has 11 bits: positions above 2048 would be rounded.
    """
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            module.register_forward_pre_hook(_exactly)
            module.register_forward_hook(_as_before, always_call=True)


def _exactly(module: nn.Module, inputs: Any) -> None:
    module.products_before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "ieee"


def _as_before(module: nn.Module, inputs: Any, output: Any) -> None:
    torch.backends.cuda.matmul.fp32_precision = module.products_before
