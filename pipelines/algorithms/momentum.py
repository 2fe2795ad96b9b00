"""Nesterov momentum over rounds of preference optimisation (He, Yuan, Gu 2024, https://arxiv.org/abs/2410.06293).

Round t trains hat_{t+1} with theta_t as start and reference; the last hat is the result. The next round starts from

    theta_{t+1} = hat_{t+1} + a (hat_{t+1} - hat_t),        hat_0 = theta_0

which does the same to log-probabilities, up to a constant, where they are affine in the weights.
`extrapolation.extrapolate` does it to models; this module says what it amounts to.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def coefficients(momentum: float | Sequence[float], rounds: int) -> list[float]:
    """c_{t,i} = (1 - a^(t+1-i)) / (1 - a) for i = 0..t, with t = rounds - 1 (t + 1 - i at a = 1).

    What round i's reward weighs in the last trained model (Theorem 4.1): log pihat_{t+1} = log pi_ref + sum_i c_{t,i}
    r_i / b_i + const. In weights, with D_i = hat_{i+1} - theta_i, hat_{t+1} = theta_0 + sum_i c_{t,i} D_i, and
    theta_{t+1} has c_{t+1,i} instead, i = 0..t (see adapters.combine).

    With a list, a_i after round i (the last round has none that counts), c_{t,t} = 1 and c_{t,i} = 1 + a_i c_{t,i+1}.
    """
    after = list(momentum) if isinstance(momentum, Sequence) else [momentum] * rounds
    return list(accumulate(after[: rounds - 1][::-1], lambda later, a: 1 + a * later, initial=1.0))[::-1]


def matched(beta: Sequence[float], momentum: float | Sequence[float]) -> list[float]:
    """The betas of rounds without momentum whose last model is that of rounds with it: b_i / c_i.

    By Theorem 4.1, for rewards of any rounds that do not depend on the policies, with exact optimisation.
    """
    return [b / c for b, c in zip(beta, coefficients(momentum, len(beta)), strict=True)]


def exponent(momentum: float, rounds: int) -> float:
    """gamma_t b = sum_i c_{t,i}: how often `rounds` rounds count a reward that is the same in each."""
    return sum(coefficients(momentum, rounds))


def ratio(momentum: float, rounds: int) -> float:
    """exponent / rounds, in [1, 1 / (1 - a)): 1.23 at a = 0.3 and 3 rounds.

    With one beta and a reward that is the same in every round, what all betas may be divided by instead of `matched`.
    """
    return exponent(momentum, rounds) / rounds
