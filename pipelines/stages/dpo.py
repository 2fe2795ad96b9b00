"""Kind `dpo`: offline preference optimisation (trl.DPOTrainer); `train.loss_type` selects any of trl's losses.

    dpo: {model: {model_name_or_path: $sft}, data: $pairs, train: {beta: 0.1, loss_type: sigmoid}}
    dpo: {model: {model_name_or_path: $dpo-1}, ref_model: {model_name_or_path: $sft}, data: $pairs, train: {}}

The reference is the step's input model, or `ref_model`, of the same vocabulary. Its log-probabilities are computed
once, before the training, where that comes by every row: the losses are the same, and no second model is held in
memory. trl's `apo_zero` and `apo_down` are *anchored* preference optimisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl

from trimtab.pipelines.data.forms import PREFERENCE, Data
from trimtab.pipelines.forecasting.work import Held, Work
from trimtab.pipelines.importing.starting import Start
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting import shows as reporting
from trimtab.pipelines.stages import Metrics, TrainerStage
from trimtab.pipelines.training import inputs
from trimtab.pipelines.training.fit import fit

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step

OVER_MICRO_BATCHES = frozenset({"aot", "aot_unpaired", "sft"})  # losses of trl's that sort or average its answers


@dataclass(kw_only=True)
class Dpo(TrainerStage):
    """`eval_data` is evaluated at the end, and during training when `train.eval_strategy` says so."""

    model: trl.ModelConfig
    data: Annotated[Data, PREFERENCE]
    eval_data: Annotated[Data | None, PREFERENCE] = None
    ref_model: trl.ModelConfig | None = None
    train: trl.DPOConfig

    neutral_when_empty: ClassVar[tuple[str, ...]] = (*TrainerStage.neutral_when_empty, "ref_model")
    cuts_by_tokens: ClassVar[bool] = True
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
        self._check_reference(step)
        super().check(step)

    def _check_reference(self, step: Step) -> None:
        """Raises RecipeError for a reference that has another vocabulary than the policy, or none of its own."""
        if self.ref_model is None:
            return
        if self.train.sync_ref_model:
            message = "follows the policy, which `ref_model` does not: leave one of them out"
            raise RecipeError(message, (*step.path, "train", "sync_ref_model"))
        from trimtab.rewards._vocabulary import identity

        name = self.ref_model.model_name_or_path
        if not name:
            place = (*step.path, "ref_model", "model_name_or_path")
            raise RecipeError("required key is missing: a local path, a hub name or $stage", place)
        policys = inputs.tokenizer(self.model, self.train, step)
        references = None if step.pending(name) else inputs.tokenizer(self.ref_model, None, step)
        if policys is not None and references is not None and identity(policys) != identity(references):
            message = (
                f"{name} has another vocabulary than {self.model.model_name_or_path}, and the loss is of the same"
            )
            raise RecipeError(f"{message} tokens: take one of the policy's family", (*step.path, "ref_model"))

    def work(self, known: Known) -> Work:
        work = super().work(known)
        if self.ref_model is None:
            return work
        return replace(work, held=(work.held[0], Held(known.model(self.ref_model))))

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.trainers.whole_steps import DPOTrainer

        if step.batch is not None and step.batch.tokens is not None:  # the reference's pass is no step's
            ahead = self.train.precompute_ref_batch_size or self.train.per_device_eval_batch_size
            self.train.precompute_ref_batch_size = ahead
        reference = {} if self.ref_model is None else {"ref_model": self._reference(self.ref_model)}
        return fit(DPOTrainer, self, step, **reference)

    def _reference(self, model: trl.ModelConfig) -> Any:
        """The reference, in the policy's own precision where it has none of its own."""
        from transformers import AutoModelForCausalLM

        dtype = model.dtype if model.dtype not in (None, "auto") else self.model.dtype
        settings = {"revision": model.model_revision, "attn_implementation": model.attn_implementation}
        return AutoModelForCausalLM.from_pretrained(model.model_name_or_path, dtype=dtype or "auto", **settings)
