"""TRL's own GRPO and RLOO on a weighted sum of rewards, with rollouts that are seeded, measured and resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import trl
from torch import Tensor

from trimtab.pipelines.trainers.proximal_steps import ProximalSteps
from trimtab.pipelines.trainers.rewarded_rollouts import RewardedRollouts
from trimtab.pipelines.trainers.rollouts import Rollout, nanstd

TRL_FLOOR = 1e-4  # what trl adds to a standard deviation before it divides by it


class WeightedGRPOTrainer(RewardedRollouts, ProximalSteps, trl.GRPOTrainer):
    """trl.GRPOTrainer, whose advantages are divided by a group's standard deviation plus `std_floor`.

    A group of answers that are all right then has small advantages, where the noise of a reward model that is added
    to a verifier would be blown up to a standard deviation of 1. None is trl's own floor.
    """

    def __init__(self, *, std_floor: float | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.std_floor = std_floor

    def _advantages(self, output: Mapping[str, Any], rollout: Rollout) -> dict[str, Any]:
        if self.std_floor is None:
            return {}
        factors = floored(rollout.rewards, self.reward_weights, self._group_size(), self.std_floor)
        start = self.accelerator.process_index * len(output["advantages"])
        of_rank = factors[start : start + len(output["advantages"])]
        return {"advantages": output["advantages"] * of_rank}


class WeightedRLOOTrainer(RewardedRollouts, trl.RLOOTrainer):
    """trl.RLOOTrainer, whose normalized advantages are divided by their standard deviation plus `std_floor`.

    None is trl's own floor. It is the standard deviation over the whole batch, since trl's RLOO has no other.
    """

    def __init__(self, *, args: trl.RLOOConfig, std_floor: float | None = None, **kwargs: Any):
        if std_floor is not None:
            args.normalize_advantages = False  # by trl, which would divide by too little
        super().__init__(args=args, **kwargs)
        self.std_floor = std_floor

    def _sample(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._sample(inputs)
        if self.std_floor is None:
            return output
        of_all = self.accelerator.gather(output["advantages"])
        scored = ~self.rollout.rewards.isnan().all(dim=1)
        mean, deviation = of_all[scored].mean(), nanstd(of_all[scored], 0)
        normalized = ((of_all - mean) / (deviation + self.std_floor)).where(scored, 0.0)
        start = self.accelerator.process_index * len(output["advantages"])
        return output | {"advantages": normalized[start : start + len(output["advantages"])]}

    def handed_back(self, completions: list[list[int]]) -> list[list[int]]:
        return completions


def floored(rewards: Tensor, weights: Tensor, group: int, floor: float) -> Tensor:
    """(N,): what turns an advantage divided by trl's std + 1e-4 into one divided by std + `floor`.

    `rewards` (N, K) have NaN where none was given, and their sum by `weights` (K,) is a completion's.
    """
    sums = (rewards * weights.to(rewards)).nansum(dim=1)
    sums = sums.masked_fill(rewards.isnan().all(dim=1), torch.nan)
    deviations = nanstd(sums.view(-1, group), 1).expand(-1, group).flatten()
    return (deviations + TRL_FLOOR) / (deviations + floor)
