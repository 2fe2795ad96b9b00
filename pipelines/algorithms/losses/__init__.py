"""Losses over lists of K answers to a prompt, best first, from their log-probabilities.

Shapes: everything is (B, K), one row per prompt; a loss returns (B,). `logps` and `ref_logps` are log pi(y | x) and
log pi_ref(y | x), summed over the answer's tokens, in nats; `lengths` counts those tokens. `present` is False where a
row has fewer than K answers, which stand at its end (None: all are there); what else stands at such places is ignored.

Below, h_k = log pi(y_k | x) / pi_ref(y_k | x) and m_k = log pi(y_k | x) / |y_k|. "Ordered pairs" are all (i, j) with
i ranked above j; their mean is the paper's loss for K = 2 and its extension to a list for K > 2.

A new loss is one new file here: its name is the word in a recipe, and it holds a function of that name, whose
parameters say what it asks for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a plan needs the names of the losses, and no torch
    from torch import Tensor

# What a loss may ask for beside log-probabilities and lengths, and the column that has it in the rows of `pair`.
COLUMNS = {"ref_logps": "ref_logps", "win_probs": "win_probs", "scores": "completion_scores"}


def named(word: str) -> Callable[..., Tensor]:
    """The loss of that name."""
    return getattr(importlib.import_module(f"{__name__}.{word}"), word)


def columns(parameters: Iterable[str]) -> dict[str, str]:
    """Those of `COLUMNS` that a loss with these parameters asks for."""
    return {name: COLUMNS[name] for name in parameters if name in COLUMNS}


def ordered_pairs(present: Tensor) -> Tensor:
    """(B, K, K), True at [b, i, j] where answers i and j of row b are there and i is ranked above j."""
    return (present[:, :, None] & present[:, None, :]).triu(1)


def are_there(logps: Tensor, present: Tensor | None) -> Tensor:
    """(B, K): `present`, or True everywhere where it is None."""
    return logps.new_ones(logps.shape).bool() if present is None else present


def mean_where(values: Tensor, where: Tensor) -> Tensor:
    """(B,): the mean of (B, ...) over the places where the mask is True."""
    return (values.where(where, 0.0)).flatten(1).sum(1) / where.flatten(1).sum(1).clamp(min=1)
