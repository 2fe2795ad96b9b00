"""Weights at places in memory where arithmetic gives the same bits.

A CPU's matrix products round differently for weights that begin at another place modulo a few dozen bytes. Weights
that are read from a file are where its header ends, so the same weights of another file, or the ones that a training
has left in memory, would give other last bits.
"""

from __future__ import annotations

from typing import Any

import torch

BYTES = 64  # where torch begins everything that it allocates itself


@torch.no_grad()
def align(model: Any) -> None:
    """Moves the weights that are on a CPU to places that torch has chosen, where a file had another one."""
    for weight in model.parameters():
        if weight.device.type == "cpu" and weight.data_ptr() % BYTES:
            weight.data = weight.data.clone()
