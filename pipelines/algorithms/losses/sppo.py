"""Self-play preference optimisation."""

from __future__ import annotations

from torch import Tensor

from trimtab.pipelines.algorithms.losses import are_there, mean_where


def sppo(
    logps: Tensor,
    ref_logps: Tensor,
    win_probs: Tensor,
    present: Tensor | None = None,
    *,
    beta: float,
) -> Tensor:
    """Self-play preference optimisation (Wu et al. 2024, arXiv 2405.00675), eta = 1 / beta.

    mean_k (h_k - eta (p_k - 1/2))^2, p_k = `win_probs` (see preference.win_probabilities). K = 2 is the released
    1/2 (winner)^2 + 1/2 (loser)^2; K > 2 regresses every answer and needs no order. log Z is taken for eta / 2, as
    released, so the minimiser is pi_ref exp(eta (p - 1/2)) before it is normalised.
    """
    return mean_where((logps - ref_logps - (win_probs - 0.5) / beta).square(), are_there(logps, present))
