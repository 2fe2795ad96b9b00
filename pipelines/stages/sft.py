"""Kind `sft`: supervised fine-tuning on text, messages or prompt and completion (trl.SFTTrainer).

    sft: {model: {model_name_or_path: Qwen/Qwen2.5-0.5B}, data: trl-lib/Capybara, train: {learning_rate: 2e-5}}

`train` holds trl.SFTConfig's keys, such as `packing` and `assistant_only_loss`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import trl

from trimtab.pipelines.data.forms import SFT, Data
from trimtab.pipelines.importing.starting import Start
from trimtab.pipelines.reporting.shows import LOSS, Shows
from trimtab.pipelines.stages import Metrics, TrainerStage
from trimtab.pipelines.training.fit import fit

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Sft(TrainerStage):
    """`eval_data` is evaluated at the end, and during training when `train.eval_strategy` says so."""

    model: trl.ModelConfig
    data: Annotated[Data, SFT]
    eval_data: Annotated[Data | None, SFT] = None
    train: trl.SFTConfig

    shows: ClassVar[Shows] = Shows(
        {"Loss": LOSS, "Token accuracy": ("*/mean_token_accuracy",)},
        ("eval/loss", "train/loss"),
        ("eval/loss",),
        watches=("train/loss", "train/mean_token_accuracy", "train/learning_rate"),
    )
    starts: ClassVar[Start | None] = Start(
        "imitate answers",
        "messages, or prompt and completion, or text",
        rate=2e-5,
        tells=(("messages",), ("prompt", "messages"), ("prompt", "completion"), ("text",)),
    )

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.trainers.whole_steps import SFTTrainer

        return fit(SFTTrainer, self, step)
