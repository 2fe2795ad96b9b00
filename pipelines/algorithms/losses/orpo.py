"""Odds-ratio preference optimisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trimtab.pipelines.algorithms.losses import are_there, mean_where, ordered_pairs


def orpo(logps: Tensor, lengths: Tensor, present: Tensor | None = None, *, beta: float) -> Tensor:
    """Odds-ratio preference optimisation (Hong et al. 2024, arXiv 2403.07691, equations 6 and 7), without a reference.

    -m_0 + beta mean over ordered pairs of -log sigmoid(o_i - o_j), where o = m - log(1 - e^m) are the log odds of an
    answer, and beta is the paper's lambda. The likelihood term is over the tokens of the best answer.
    """
    means = logps / lengths.clamp(min=1)
    certain = -torch.finfo(means.dtype).eps  # an answer of probability 1 has infinite odds
    odds = means - torch.log(-torch.expm1(means.clamp(max=certain)))
    worse = -F.logsigmoid(odds[:, :, None] - odds[:, None, :])
    return -means[:, 0] + beta * mean_where(worse, ordered_pairs(are_there(logps, present)))
