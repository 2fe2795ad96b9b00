"""Efficient exact optimisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trimtab.pipelines.algorithms.losses import are_there


def exo(
    logps: Tensor,
    ref_logps: Tensor,
    present: Tensor | None = None,
    *,
    beta: float,
    epsilon: float,
) -> Tensor:
    """Efficient exact optimisation (Ji et al. 2024, arXiv 2402.00856, equation 16): a reverse KL; DPO's is forward.

    KL(q || p) = sum_k q_k log(q_k / p_k), q = softmax(beta h), p_0 = 1 - epsilon. K = 2: p_1 = epsilon, and the loss
    is 0 at beta (h_0 - h_1) = log((1 - epsilon) / epsilon), a finite margin. K > 2 (ours; the paper's lists need a
    reward): epsilon is shared evenly by all answers but the best.
    """
    there = are_there(logps, present)
    log_q = torch.where(there, beta * (logps - ref_logps), -torch.inf).log_softmax(-1)
    log_q = torch.where(there, log_q, 0.0)  # before anything is multiplied: 0 times infinity has no gradient
    others = (there.sum(-1, keepdim=True) - 1).clamp(min=1).to(logps)
    log_p = (math.log(epsilon) - others.log()).repeat(1, logps.shape[1])
    log_p[:, 0] = math.log1p(-epsilon)
    return torch.where(there, log_q.exp() * (log_q - log_p), 0.0).sum(-1)
