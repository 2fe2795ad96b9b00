"""Kind `dpo`: offline preference optimisation (trl.DPOTrainer); `train.loss_type` selects any of trl's losses.

    dpo: {model: {model_name_or_path: $sft}, data: $pairs, train: {beta: 0.1, loss_type: sigmoid}}

The reference is the step's input model. trl's `apo_zero` and `apo_down` are *anchored* preference optimisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import trl

from pipelines import data, training
from pipelines.data import Data
from pipelines.stages import Stage


@dataclass(kw_only=True)
class Dpo(Stage):
    """`eval_data` is evaluated at the end, and during training when `train.eval_strategy` says so."""

    model: trl.ModelConfig
    data: Data
    eval_data: Data | None = None
    train: trl.DPOConfig

    def check(self, step):
        training.check(self, step, data.PREFERENCE)

    def run(self, step):
        return training.fit(trl.DPOTrainer, self, step)
