"""Losses over lists of K answers to a prompt, best first, from their log-probabilities.

Shapes: everything is (B, K), one row per prompt; a loss returns (B,). `logps` and `ref_logps` are log pi(y | x) and
log pi_ref(y | x), summed over the answer's tokens, in nats; `lengths` counts those tokens. `present` is False where a
row has fewer than K answers, which stand at its end (None: all are there); what else stands at such places is ignored.

Below, h_k = log pi(y_k | x) / pi_ref(y_k | x) and m_k = log pi(y_k | x) / |y_k|. "Ordered pairs" are all (i, j) with
i ranked above j; their mean is the paper's loss for K = 2 and its extension to a list for K > 2.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from pipelines.algorithms.preference import plackett_luce


def dpo(
    logps: torch.Tensor, ref_logps: torch.Tensor, present: torch.Tensor | None = None, *, beta: float
) -> torch.Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7 and appendix A.3).

    K = 2: -log sigmoid(beta (h_0 - h_1)). K > 2: the Plackett-Luce likelihood of the ranking under the rewards
    beta h, -sum_k log [ exp(beta h_k) / sum_{j >= k} exp(beta h_j) ], of which K = 2 is a case.
    """
    rewards = beta * (logps - ref_logps)
    return plackett_luce(torch.where(_there(logps, present), rewards, -torch.inf))


def ipo(
    logps: torch.Tensor, ref_logps: torch.Tensor, present: torch.Tensor | None = None, *, beta: float
) -> torch.Tensor:
    """Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036, equation 17, tau = beta).

    mean over ordered pairs of (h_i - h_j - 1 / (2 beta))^2, with h summed over tokens as in the paper; trl divides h
    by the answer's length.
    """
    ratios = logps - ref_logps
    gaps = ratios[:, :, None] - ratios[:, None, :]
    return _mean((gaps - 1 / (2 * beta)).square(), ordered_pairs(_there(logps, present)))


def sppo(
    logps: torch.Tensor,
    ref_logps: torch.Tensor,
    win_probs: torch.Tensor,
    present: torch.Tensor | None = None,
    *,
    beta: float,
) -> torch.Tensor:
    """Self-play preference optimisation (Wu et al. 2024, arXiv 2405.00675), eta = 1 / beta.

    mean_k (h_k - eta (p_k - 1/2))^2, p_k = `win_probs` (see preference.win_probabilities). K = 2 is the released
    1/2 (winner)^2 + 1/2 (loser)^2; K > 2 regresses every answer and needs no order. log Z is taken for eta / 2, as
    released, so the minimiser is pi_ref exp(eta (p - 1/2)) before it is normalised.
    """
    return _mean((logps - ref_logps - (win_probs - 0.5) / beta).square(), _there(logps, present))


def exo(
    logps: torch.Tensor,
    ref_logps: torch.Tensor,
    present: torch.Tensor | None = None,
    *,
    beta: float,
    epsilon: float,
) -> torch.Tensor:
    """Efficient exact optimisation (Ji et al. 2024, arXiv 2402.00856, equation 16): a reverse KL; DPO's is forward.

    KL(q || p) = sum_k q_k log(q_k / p_k), q = softmax(beta h), p_0 = 1 - epsilon. K = 2: p_1 = epsilon, and the loss
    is 0 at beta (h_0 - h_1) = log((1 - epsilon) / epsilon), a finite margin. K > 2 (ours; the paper's lists need a
    reward): epsilon is shared evenly by all answers but the best.
    """
    there = _there(logps, present)
    log_q = torch.where(there, beta * (logps - ref_logps), -torch.inf).log_softmax(-1)
    log_q = torch.where(there, log_q, 0.0)  # before anything is multiplied: 0 times infinity has no gradient
    others = (there.sum(-1, keepdim=True) - 1).clamp(min=1).to(logps)
    log_p = (math.log(epsilon) - others.log()).repeat(1, logps.shape[1])
    log_p[:, 0] = math.log1p(-epsilon)
    return torch.where(there, log_q.exp() * (log_q - log_p), 0.0).sum(-1)


def orpo(
    logps: torch.Tensor, lengths: torch.Tensor, present: torch.Tensor | None = None, *, beta: float
) -> torch.Tensor:
    """Odds-ratio preference optimisation (Hong et al. 2024, arXiv 2403.07691, equations 6 and 7), without a reference.

    -m_0 + beta mean over ordered pairs of -log sigmoid(o_i - o_j), where o = m - log(1 - e^m) are the log odds of an
    answer, and beta is the paper's lambda. The likelihood term is over the tokens of the best answer.
    """
    means = logps / lengths.clamp(min=1)
    certain = -torch.finfo(means.dtype).eps  # an answer of probability 1 has infinite odds
    odds = means - torch.log(-torch.expm1(means.clamp(max=certain)))
    worse = -F.logsigmoid(odds[:, :, None] - odds[:, None, :])
    return -means[:, 0] + beta * _mean(worse, ordered_pairs(_there(logps, present)))


def rrhf(
    logps: torch.Tensor, lengths: torch.Tensor, scores: torch.Tensor, present: torch.Tensor | None = None
) -> torch.Tensor:
    """Rank responses (Yuan et al. 2023, arXiv 2304.05302), without a reference and without a beta.

    sum over all (i, j) with score_i > score_j of max(0, m_j - m_i), plus -m_0, the mean over the tokens of the best
    answer as released (the paper sums them). `scores` decide which pairs count: equal ones do not.
    """
    means = logps / lengths.clamp(min=1)
    there = _there(logps, present)
    pairs = (scores[:, :, None] > scores[:, None, :]) & there[:, :, None] & there[:, None, :]
    wrong = F.relu(means[:, None, :] - means[:, :, None])
    return torch.where(pairs, wrong, 0.0).sum((1, 2)) - means[:, 0]


LOSSES = {"dpo": dpo, "ipo": ipo, "sppo": sppo, "orpo": orpo, "rrhf": rrhf, "exo": exo, "plackett_luce": dpo}

# What a loss may ask for beside log-probabilities and lengths, and the column that has it in the rows of `pair`.
COLUMNS = {"ref_logps": "ref_logps", "win_probs": "win_probs", "scores": "completion_scores"}


def columns(loss: Callable[..., torch.Tensor]) -> dict[str, str]:
    """Those of `COLUMNS` that the loss asks for, by the names of its parameters."""
    return {name: COLUMNS[name] for name in inspect.signature(loss).parameters if name in COLUMNS}


def ordered_pairs(present: torch.Tensor) -> torch.Tensor:
    """(B, K, K), True at [b, i, j] where answers i and j of row b are there and i is ranked above j."""
    return (present[:, :, None] & present[:, None, :]).triu(1)


def _there(logps: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    return torch.ones_like(logps, dtype=torch.bool) if present is None else present


def _mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """(B,): the mean of (B, ...) over the places where the mask is True."""
    return torch.where(where, values, 0.0).flatten(1).sum(1) / where.flatten(1).sum(1).clamp(min=1)
