"""Reward model training on all pairs of a prompt's answers of which one is better, each answer read once.

Yang et al. 2024 (Qwen2.5-Math, https://arxiv.org/abs/2409.12122): of k right answers among K, the loss of a prompt is
the mean over its k (K - k) pairs of -log sigmoid(r(right) - r(wrong)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from trimtab.pipelines.algorithms.losses import mean_where
from trimtab.pipelines.trainers.listwise_reward import ListwiseRewardTrainer, RankingCollator


@dataclass
class GroupCollator(RankingCollator):
    """The same, with `scores` (rows, largest K), 0 where no answer is."""

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = super().__call__(rows)
        scores = torch.zeros(batch["present"].shape)
        scores[batch["present"]] = torch.tensor([score for row in rows for score in row["completion_scores"]])
        return {**batch, "scores": scores}


class GroupedRewardTrainer(ListwiseRewardTrainer):
    """Takes rows with `prompt`, `completions` and `completion_scores`, by which one answer is better than another."""

    columns = ("ranked_ids", "completion_scores")
    collator = GroupCollator

    def losses(self, rewards: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        rewards = rewards.where(inputs["present"], 0.0)
        gaps = rewards[:, :, None] - rewards[:, None, :]
        return mean_where(-torch.nn.functional.logsigmoid(gaps), self.pairs(inputs))

    def pairs(self, inputs: dict[str, Any]) -> torch.Tensor:
        scores, present = inputs["scores"], inputs["present"]
        return (scores[:, :, None] > scores[:, None, :]) & present[:, :, None] & present[:, None, :]
