"""How a multiplier comes from the number that is learned for it, `raw`, so that it stays in its range.

With N the number of constraints, A_0 the task's advantage and A_i those of the constrained rewards:

    bounded    s = sigmoid(raw), tanh(raw) for `equal`; A = (N - sum s) A_0 + sum +-s A_i, equation 4.4 of Moskovitz
               et al. 2023 (https://arxiv.org/abs/2310.04373). In units of the task lambda_i = s_i / (N - sum s), which
               is below (1 + sum lambda) / N: thresholds that need more are not reached, and a warning says so
    softplus   lambda = log(1 + e^raw), raw itself for `equal`; A = A_0 + sum +-lambda A_i
    projected  lambda = max(0, raw), raw for `equal`; A as for softplus
    log        lambda = e^raw up to `cap`; A = (A_0 + sum +-lambda A_i) / (1 + sum lambda), as in safe-rlhf; no `equal`
"""

from __future__ import annotations

import math
from typing import Literal

Parametrization = Literal["bounded", "softplus", "projected", "log"]
SMALLEST = 1e-6  # a multiplier of 0 has no finite `raw` where it is a sigmoid, a softplus or a power


def raw_of(multiplier: float, form: Parametrization, equal: bool) -> float:
    """The `raw` at which the multiplier has that value; `equal` is whether it may have either sign."""
    if form == "projected" or (equal and form == "softplus"):
        return multiplier
    if form == "bounded":
        share = max(multiplier, SMALLEST)
        return math.atanh(multiplier) if equal else math.log(share / (1 - share))
    if form == "softplus":
        return math.log(math.expm1(max(multiplier, SMALLEST)))
    return math.log(max(multiplier, SMALLEST))


def value_and_slope(raw: float, form: Parametrization, equal: bool) -> tuple[float, float]:
    """The multiplier and its derivative by `raw`."""
    if form == "bounded":
        value = math.tanh(raw) if equal else _sigmoid(raw)
        return value, 1 - value * value if equal else value * (1 - value)
    if form == "log":
        value = math.exp(min(raw, 50.0))
        return value, value
    if form == "softplus" and not equal:
        return (raw if raw > 30 else math.log1p(math.exp(raw))), _sigmoid(raw)
    return (raw if equal else max(0.0, raw)), 1.0


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
