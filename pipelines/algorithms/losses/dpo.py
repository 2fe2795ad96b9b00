"""Direct preference optimisation, and its list form."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab.pipelines.algorithms.losses import are_there
from trimtab.pipelines.algorithms.preference import plackett_luce


def dpo(logps: Tensor, ref_logps: Tensor, present: Tensor | None = None, *, beta: float) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7 and appendix A.3).

    K = 2: -log sigmoid(beta (h_0 - h_1)). K > 2: the Plackett-Luce likelihood of the ranking under the rewards
    beta h, -sum_k log [ exp(beta h_k) / sum_{j >= k} exp(beta h_j) ], of which K = 2 is a case.
    """
    rewards = beta * (logps - ref_logps)
    return plackett_luce(torch.where(are_there(logps, present), rewards, -torch.inf))
