"""Kind `reward`: a reward model from preferences (trl.RewardTrainer) or from rankings.

    reward: {model: {model_name_or_path: $sft}, data: $pairs, train: {learning_rate: 1e-5}}
    reward: {model: {model_name_or_path: $sft}, data: $ranked, loss: listwise, train: {learning_rate: 1e-5}}

`pairwise` is Bradley-Terry on `chosen` and `rejected` (with `prompt` or without). `listwise` is Plackett-Luce on
`prompt` and `completions`, a list from the best answer to the worst, as `pair` with `select: ranked` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import trl

from pipelines import data, training
from pipelines.data import Data
from pipelines.stages import Stage


@dataclass(kw_only=True)
class Reward(Stage):
    """`eval_data` is evaluated at the end: `eval/accuracy` is the share of pairs ranked as labelled."""

    model: trl.ModelConfig
    data: Data
    eval_data: Data | None = None
    loss: Literal["pairwise", "listwise"] = "pairwise"
    train: trl.RewardConfig

    def check(self, step):
        training.check(self, step, data.PREFERENCE if self.loss == "pairwise" else data.RANKING)

    def run(self, step):
        self.model.lora_task_type = "SEQ_CLS"  # trl's default is a language model's, which a reward model never is
        if self.loss == "pairwise":
            return training.fit(trl.RewardTrainer, self, step)
        from pipelines.trainers.listwise_reward import ListwiseRewardTrainer

        return training.fit(ListwiseRewardTrainer, self, step)
