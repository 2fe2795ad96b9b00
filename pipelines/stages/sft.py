"""Kind `sft`: supervised fine-tuning on text, messages or prompt and completion (trl.SFTTrainer).

sft: {model: {model_name_or_path: Qwen/Qwen2.5-0.5B}, data: trl-lib/Capybara, train: {learning_rate: 2e-5}}
"""

from __future__ import annotations

from dataclasses import dataclass

import trl

from pipelines import data, training
from pipelines.data import Data
from pipelines.stages import Stage


@dataclass(kw_only=True)
class Sft(Stage):
    """`eval_data` is evaluated at the end, and during training when `train.eval_strategy` says so."""

    model: trl.ModelConfig
    data: Data
    eval_data: Data | None = None
    train: trl.SFTConfig

    def check(self, step):
        training.check(self, step, data.SFT)

    def run(self, step):
        return training.fit(trl.SFTTrainer, self, step)
