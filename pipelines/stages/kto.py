"""Kind `kto`: Kahneman-Tversky optimisation on answers that are each labelled good or bad (trl.KTOTrainer).

    kto: {model: {model_name_or_path: $sft}, data: $thumbs, train: {beta: 0.1, desirable_weight: 1.0}}

What thumbs up and down of single answers are enough for (Ethayarajh et al. 2024, arXiv 2402.01306): no pairs are
needed, and pairs are taken apart. The reference is the step's input model. trl estimates the KL from the other answers
of a batch, so a device needs at least two of them; `loss_type: apo_zero_unpaired` needs no estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl

from trimtab.pipelines.data.forms import UNPAIRED, Data
from trimtab.pipelines.importing.starting import Start
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import LOSS, Shows
from trimtab.pipelines.stages import Metrics, TrainerStage
from trimtab.pipelines.training.fit import fit

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Kto(TrainerStage):
    """`label` is true for a good answer. `desirable_weight` and `undesirable_weight` even out unequal numbers."""

    model: trl.ModelConfig
    data: Annotated[Data, UNPAIRED]
    eval_data: Annotated[Data | None, UNPAIRED] = None
    train: trl.KTOConfig

    shows: ClassVar[Shows] = Shows(
        {
            "Loss": LOSS,
            "Rewards of good and bad answers": ("*/rewards/chosen", "*/rewards/rejected"),
            "Reward margin": ("*/rewards/margins",),
            "KL estimate": ("*/kl",),
        },
        ("eval/rewards/margins", "eval/loss", "train/loss"),
        watches=("train/loss", "train/rewards/margins", "train/kl"),
    )
    starts: ClassVar[Start | None] = Start(
        "prefer good answers to bad ones",
        "prompt, completion, label",
        rate=5e-7,
        tells=(("prompt", "completion", "label"),),
        more=", beta: 0.1",
    )

    @classmethod
    def by_micro_batch(cls, train: Mapping[str, Any]) -> bool:
        return train.get("loss_type", "kto") == "kto"  # whose KL is estimated from the other answers

    def check(self, step: Step) -> None:
        if self.train.loss_type == "kto" and self.train.per_device_train_batch_size < 2:
            raise RecipeError(
                f"must be at least 2, got {self.train.per_device_train_batch_size}: the KL is estimated from the "
                "other answers of a batch",
                (*step.path, "train", "per_device_train_batch_size"),
            )
        if not self.train.beta > 0:
            raise RecipeError(
                f"must be above 0, got {self.train.beta:g}: the loss would not depend on the answers",
                (*step.path, "train", "beta"),
            )
        super().check(step)

    def run(self, step: Step) -> Metrics:
        return fit(trl.KTOTrainer, self, step)
