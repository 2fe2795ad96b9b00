"""Advantages of tokens: from critics, by generalised advantage estimation, or from what is still to come of a sum.

Schulman et al. 2016 (https://arxiv.org/abs/1506.02438), equation 16; one value function for each reward as in
Moskovitz et al. 2023 (https://arxiv.org/abs/2310.04373), section 4.3. This module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class CriticSettings:
    """The critics of `trainer: ppo`, a value head for each reward and one for the KL, and how they are learned.

    `trunk`: `separate` is a second model that begins with the policy's weights; `shared` puts the heads on the
    policy, which LoRA needs. `gamma` and `lam` are those of GAE. `coefficient` and `kl_coefficient` weigh the squared
    errors of the heads, `clip` keeps a value within that distance (in units of the reward) of what it was when the
    completions were sampled, and `learning_rate` is the critics' own (the policy's when left out). In the first
    `warmup_steps` only critics are learned. `scale_kl` divides the KL's advantages by their standard deviation too,
    as the paper does: `train.beta` then has no meaning but 0 or not.
    """

    trunk: Literal["separate", "shared"] = "separate"
    gamma: float = 1.0
    lam: float = 0.95
    coefficient: float = 0.5
    kl_coefficient: float = 0.2
    clip: float | None = None
    learning_rate: float | None = None
    warmup_steps: int = 0
    scale_kl: bool = False

    def __post_init__(self) -> None:
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        for name in ("clip", "learning_rate"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("coefficient", "kl_coefficient", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> Tensor:
    """Advantages (N, T, K) of K rewards (N, T, K), each with its own values (N, T, K) before the token at t.

    `mask` (N, T) is 1 for a completion's tokens, from the first on; after its last one nothing is to come.
    """
    mask = mask.to(values.dtype).unsqueeze(-1)
    advantages, running = values.new_zeros(values.shape), values.new_zeros(values.shape[0], values.shape[2])
    width = values.shape[1]
    for t in reversed(range(width)):
        follows = mask[:, t + 1] if t + 1 < width else 0.0
        after = values[:, t + 1] * follows if t + 1 < width else 0.0
        running = rewards[:, t] + gamma * after - values[:, t] + gamma * lam * follows * running
        advantages[:, t] = running
    return advantages * mask


def still_to_come(drift: Tensor) -> Tensor:
    """Minus the sum of `drift` (..., T) from each token to the answer's end, (..., T), in nats.

    With drift_t = log pi(y_t | y_<t) - log pi_0(y_t | y_<t), 0 behind the end, the whole KL of pi to pi_0 has the
    gradient -E[sum_t still_to_come_t grad log pi(y_t | y_<t)]: a token answers for the contexts that it leads to.
    """
    return -drift.flip(-1).cumsum(-1).flip(-1)


def value_errors(values: Tensor, old: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Half the squared errors, elementwise; with `clip` the larger one of those of the value and the clipped value."""
    errors = (values - returns).square()
    if clip is not None:
        clipped = old + (values - old).clamp(-clip, clip)
        errors = errors.maximum((clipped - returns).square())
    return 0.5 * errors
