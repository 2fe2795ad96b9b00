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
    """`eval_data` is evaluated at the end, and during training when `train.eval_strategy` says so.

    `keep_optimizer` keeps the optimizer's state beside the model, and `optimizer: $that_stage` begins with it.
    """

    model: trl.ModelConfig
    data: Data
    eval_data: Data | None = None
    optimizer: str | None = None
    keep_optimizer: bool = False
    train: trl.DPOConfig

    def check(self, step):
        from pipelines import optimizer_state

        optimizer_state.check(self, step)
        training.check(self, step, data.PREFERENCE)

    def run(self, step):
        kept = {"optimizer": self.optimizer, "keep_optimizer": self.keep_optimizer}
        return training.fit(trl.DPOTrainer, self, step, **kept)
