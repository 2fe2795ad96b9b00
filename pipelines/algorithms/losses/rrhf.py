"""Rank responses to align."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trimtab.pipelines.algorithms.losses import are_there


def rrhf(logps: Tensor, lengths: Tensor, scores: Tensor, present: Tensor | None = None) -> Tensor:
    """Rank responses (Yuan et al. 2023, arXiv 2304.05302), without a reference and without a beta.

    sum over all (i, j) with score_i > score_j of max(0, m_j - m_i), plus -m_0, the mean over the tokens of the best
    answer as released (the paper sums them). `scores` decide which pairs count: equal ones do not.
    """
    means = logps / lengths.clamp(min=1)
    there = are_there(logps, present)
    pairs = (scores[:, :, None] > scores[:, None, :]) & there[:, :, None] & there[:, None, :]
    wrong = F.relu(means[:, None, :] - means[:, :, None])
    return torch.where(pairs, wrong, 0.0).sum((1, 2)) - means[:, 0]
