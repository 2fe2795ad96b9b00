"""Kind `dpo`: offline preference optimisation (trl.DPOTrainer); `train.loss_type` selects any of trl's losses.

    dpo: {model: {model_name_or_path: $sft}, data: $pairs, train: {beta: 0.1, loss_type: sigmoid}}

The reference is the step's input model. Its log-probabilities are computed once, before the training, where that comes
by every row: the losses are the same, and no second model is held in memory. trl's `apo_zero` and `apo_down` are
*anchored* preference optimisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl

from trimtab.pipelines.data.forms import PREFERENCE, Data
from trimtab.pipelines.importing.starting import Start
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting import shows as reporting
from trimtab.pipelines.stages import Metrics, TrainerStage
from trimtab.pipelines.training import warm_starts
from trimtab.pipelines.training.fit import fit

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

OVER_MICRO_BATCHES = frozenset({"aot", "aot_unpaired", "sft"})  # losses of trl's that sort or average its answers


@dataclass(kw_only=True)
class Dpo(TrainerStage):
    """`eval_data` is evaluated at the end, and during training when `train.eval_strategy` says so.

    `keep_optimizer` keeps the optimizer's state beside the model, and `optimizer: $that_stage` begins with it.
    """

    model: trl.ModelConfig
    data: Annotated[Data, PREFERENCE]
    eval_data: Annotated[Data | None, PREFERENCE] = None
    optimizer: str | None = None
    keep_optimizer: bool = False
    train: trl.DPOConfig

    shows: ClassVar[reporting.Shows] = reporting.PREFERENCE
    starts: ClassVar[Start | None] = Start(
        "prefer the better of two answers",
        "prompt, chosen, rejected",
        rate=5e-7,
        tells=(("chosen", "rejected"),),
        more=", beta: 0.1",
    )

    @classmethod
    def by_micro_batch(cls, train: Mapping[str, Any]) -> bool:
        losses = train.get("loss_type")
        losses = losses if isinstance(losses, list) else [losses]
        return not OVER_MICRO_BATCHES.isdisjoint(losses)

    def check(self, step: Step) -> None:
        losses = self.train.loss_type
        losses = [losses] if isinstance(losses, str) else list(losses)
        if not self.train.beta > 0 and losses != ["sft"]:
            raise RecipeError(
                f"must be above 0, got {self.train.beta:g}: the loss would not depend on the preferences",
                (*step.path, "train", "beta"),
            )
        warm_starts.check(self, step)
        super().check(step)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.trainers.whole_steps import DPOTrainer

        return fit(DPOTrainer, self, step, optimizer=self.optimizer, keep_optimizer=self.keep_optimizer)
