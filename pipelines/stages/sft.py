"""Kind `sft`: supervised fine-tuning on text, messages or prompt and completion (trl.SFTTrainer).

    sft: {model: {model_name_or_path: Qwen/Qwen2.5-0.5B}, data: trl-lib/Capybara, train: {learning_rate: 2e-5}}

`train` holds trl.SFTConfig's keys, such as `packing` and `assistant_only_loss`.

    sft: {added_tokens: ["<|thinking|>", "<|/thinking|>"], ...}

gives the model tokens that its vocabulary lacks before it is trained, in a step `add_tokens` of its own. They are
whole tokens that stay in the text of answers, with rows of their own in the embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl

from trimtab.pipelines.data.forms import SFT, Data
from trimtab.pipelines.importing.starting import Start
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import LOSS, Shows
from trimtab.pipelines.stages import Metrics, StepOptions, TrainerStage
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
    added_tokens: list[str] = field(default_factory=list)

    neutral_when_empty: ClassVar[tuple[str, ...]] = (*TrainerStage.neutral_when_empty, "added_tokens")
    cuts_by_tokens: ClassVar[bool] = True
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

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterator[StepOptions]:
        tokens, model = options.get("added_tokens"), options.get("model")
        if not tokens or not isinstance(model, dict):
            yield name, kind, options
            return
        if model.get("use_peft") and not model.get("lora_modules_to_save"):
            message = (
                "LoRA would leave the embeddings of new tokens as they are: add `model.lora_modules_to_save: "
                "[embed_tokens, lm_head]`, or the names that the model has for them"
            )
            raise RecipeError(message, ("stages", name, "added_tokens"))
        begins_with = {key: model[key] for key in ("model_name_or_path", "model_revision") if key in model}
        yield f"{name}-tokens", "add_tokens", {"model": begins_with, "added_tokens": tokens}
        trained = {key: model[key] for key in model if key not in begins_with}
        of_training = {key: options[key] for key in options if key != "added_tokens"}
        yield name, kind, {**of_training, "model": {**trained, "model_name_or_path": f"${name}-tokens"}}

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.trainers.whole_steps import SFTTrainer

        return fit(SFTTrainer, self, step)
