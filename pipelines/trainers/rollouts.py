"""A rollout: what its methods hand on beside trl's own dictionary, and the arithmetic on its batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Rollout:
    """What a trainer learns of one rollout while trl makes it, for the methods that trl calls later."""

    rows: Sequence[Mapping[str, Any]] = ()  # of this rank, one for each completion
    rewards: Tensor = field(default_factory=lambda: torch.empty(0, 0))  # (all ranks' N, K), NaN where none was given
    values: list[Tensor] = field(default_factory=list)  # critics' values, (rows, L, heads) of every forward pass
    kl: float | None = None  # to the start, in nats per token; None as well once it was taken

    def take_kl(self) -> float | None:
        """The KL of the rollout at the first call, and None at all later ones."""
        kl, self.kl = self.kl, None
        return kl


def group_advantages(rewards: Tensor, group: int, scale: str) -> Tensor:
    """Rewards (N, K) minus their means over each prompt's `group` completions, divided as `scale` says.

    `group` divides by the standard deviation of a prompt's completions, `batch` by that of all, `none` by nothing. A
    completion that a reward has not scored has the advantage 0.
    """
    grouped = rewards.view(-1, group, rewards.shape[-1])
    advantages = grouped - grouped.nanmean(dim=1, keepdim=True)
    if scale == "group":
        advantages = advantages / (nanstd(grouped, 1) + 1e-4)
    elif scale == "batch":
        advantages = advantages / (nanstd(rewards, 0) + 1e-4)
    return advantages.nan_to_num(0.0).flatten(0, 1)


def trimmed(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch without the columns on the right that are padding in all of its completions."""
    mask = batch["completion_mask"]
    width, used = mask.shape[1], max(1, int(mask.any(0).sum()))
    untouched = {"prompt_ids", "prompt_mask"}
    by_reward = batch.get("advantages_by_reward")
    if by_reward is not None and by_reward.dim() == 2:  # one for a completion, (N, K), and not for a token
        untouched.add("advantages_by_reward")
    shorter = dict(batch)
    for key, value in batch.items():
        of_tokens = isinstance(value, Tensor) and value.dim() >= 2 and value.shape[1] == width
        if of_tokens and key not in untouched:
            shorter[key] = value[:, :used]
    return shorter


def nanstd(values: Tensor, dim: int) -> Tensor:
    """Standard deviation without bias over what is not NaN, 0 for fewer than two numbers; `dim` stays."""
    count = (~values.isnan()).sum(dim, keepdim=True)
    squares = (values - values.nanmean(dim, keepdim=True)).square().nansum(dim, keepdim=True)
    return (squares / (count - 1).clamp(min=1)).sqrt()
