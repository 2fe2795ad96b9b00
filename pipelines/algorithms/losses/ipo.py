"""Identity preference optimisation."""

from __future__ import annotations

from torch import Tensor

from trimtab.pipelines.algorithms.losses import are_there, mean_where, ordered_pairs


def ipo(logps: Tensor, ref_logps: Tensor, present: Tensor | None = None, *, beta: float) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036, equation 17, tau = beta).

    mean over ordered pairs of (h_i - h_j - 1 / (2 beta))^2, with h summed over tokens as in the paper; trl divides h
    by the answer's length.
    """
    ratios = logps - ref_logps
    gaps = ratios[:, :, None] - ratios[:, None, :]
    return mean_where((gaps - 1 / (2 * beta)).square(), ordered_pairs(are_there(logps, present)))
