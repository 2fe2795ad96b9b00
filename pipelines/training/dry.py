"""What a trainer will be made of, made dry: arguments without devices, adapters on a model without weights.

What upstream refuses then is a mistake in the recipe, with upstream's words, before anything is launched.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning import adapters, field_types, hub, memos, ranks, schema
from trimtab.pipelines.planning.errors import Mistakes, RecipeError
from trimtab.pipelines.training import inputs, lineage
from trimtab.pipelines.training.arguments import arguments, trackers

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # the mark in a chat template of what the model itself says
LENGTHS = {"max_length": 0, "max_completion_length": 1}  # in tokens, and what stands before it at least
REFUSALS = (ValueError, TypeError, ImportError, RuntimeError, OSError, NotImplementedError)


def check(stage: Any, step: Step) -> None:
    """Raises RecipeError for what cannot be constructed of a trainer-backed stage, in as far as it is known."""
    mistakes = Mistakes()
    for look in (_trackers, _arguments, _adapters, _marks, _lengths):
        with mistakes.collected():
            look(stage, step)
    mistakes.raise_any()


def _arguments(stage: Any, step: Step) -> None:
    """Constructs the training arguments for as many processes as will be launched, where that is known.

    Upstream's classes take seconds to import: what they have taken once is remembered (see planning/memos.py).
    """
    launch, place = step.launch, (*step.path, "train")
    if launch is None:
        return
    half = next((key for key in ("fp16", "fp16_full_eval") if getattr(stage.train, key, False)), None)
    if launch.on_cpu and half:
        raise RecipeError("needs a GPU, and the step is launched on CPUs: leave it out", (*place, half))
    cls = field_types.bare(field_types.hints(type(stage))["train"])
    name = f"{cls.__module__}.{cls.__name__}"
    launcher = {name: value for name, value in os.environ.items() if name.startswith("ACCELERATE_")}
    subject = [name, step.options.get("train", {}), asdict(launch), ranks.devices(), launcher]

    def construct() -> bool:
        _construct(stage, step, launch.processes, place)
        return True

    if name.startswith("trl."):
        memos.recalled("constructed", subject, construct)
    else:
        construct()  # a class of a user's own may change


def _construct(stage: Any, step: Step, processes: int, place: tuple[str, ...]) -> None:
    from trimtab.pipelines.trainers.seams.engines import untouched

    with field_types.imported():
        cls = field_types.bare(field_types.hints(type(stage))["train"])
        block = schema.check(cls, step.options.get("train", {}), place)
        try:
            with untouched():
                schema.instance(_without_devices(cls, processes), arguments(block, step))
        except REFUSALS as error:
            raise RecipeError(str(error), (*place, *_key_meant(str(error), block))) from error


def _without_devices(cls: Any, processes: int) -> Any:
    """The class of training arguments, with the answers of one rank of a launch in the place of a look at devices."""
    import torch

    device = torch.device("cpu")
    answers = {"world_size": processes, "process_index": 0, "local_process_index": 0, "n_gpu": 1, "device": device}
    return type(cls.__name__, (cls,), answers)


def _key_meant(message: str, block: dict[str, Any]) -> list[str]:
    """The key of the block that a message of upstream's names first, as a list of one or none."""
    named = {key: re.search(rf"\b{re.escape(key)}\b", message) for key in block}
    places = {key: match.start() for key, match in named.items() if match}
    return [min(places, key=lambda key: places[key])] if places else []


def _trackers(stage: Any, step: Step) -> None:
    """Raises RecipeError for a tracker in `report_to` that transformers does not know, or that is not installed."""
    names = trackers(stage.train.report_to) if step.options.get("train", {}).get("report_to") else []
    if not names:
        return
    from trimtab.pipelines.trainers.seams.trl import (
        get_available_reporting_integrations,
        get_reporting_integration_callbacks,
    )

    installed = get_available_reporting_integrations()
    try:
        for name in names:
            (callback,) = get_reporting_integration_callbacks([name])
            if name not in installed:
                callback()  # says what it misses
    except REFUSALS as error:
        raise RecipeError(f"{name}: {error}", (*step.path, "train", "report_to")) from error


def weights_trained(stage: Any, step: Step) -> int | None:
    """How many weights a training has; None where its model has still to be made."""
    model = _without_weights(stage, step)
    return None if model is None else sum(value.numel() for value in model.parameters() if value.requires_grad)


def _adapters(stage: Any, step: Step) -> None:
    """Puts the adapters on a model without weights, as the trainer will on one with them."""
    adapted = _without_weights(stage, step) if stage.model.use_peft else None
    if adapted is None or _scores(stage):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    if isinstance(adapted.get_output_embeddings(), BaseTunerLayer):
        raise RecipeError(
            "Applying a PEFT adapter to `lm_head` is not supported: trl computes log-probabilities from its weight "
            "directly, so the adapter would never be trained. Remove it from the list",
            (*step.path, "model", "lora_target_modules"),
        )


def _without_weights(stage: Any, step: Step) -> Any:
    """The model that a training begins with, its adapters on it, on no device; None where it has still to be made."""
    name = stage.model.model_name_or_path
    if not name or step.pending(name):
        return None
    hub.require(name, (*step.path, "model", "model_name_or_path"))
    import peft
    import torch
    import transformers
    import trl

    scores = _scores(stage)
    made_by = transformers.AutoModelForSequenceClassification if scores else transformers.AutoModelForCausalLM
    config = trl.get_peft_config(stage.model)
    try:
        source, revision = adapters.source(name, stage.model.model_revision, adapters.MODEL)
        of_model = transformers.AutoConfig.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        there = (*step.path, "model", "model_name_or_path")
        raise hub.unreachable(name, there) or RecipeError(f"cannot load {name}: {error}", there) from error
    if scores:
        of_model.num_labels = 1
    try:
        with torch.device("meta"):
            model = made_by.from_config(of_model)
        if config is None:
            return model
        config.task_type = "SEQ_CLS" if scores else config.task_type
        with warnings.catch_warnings(action="ignore"):  # the training says them
            return peft.get_peft_model(model, config)
    except REFUSALS as error:
        raise RecipeError(str(error), (*step.path, "model", "lora_target_modules")) from error


def _scores(stage: Any) -> bool:
    """Whether the training is of a reward model, which gives a score."""
    import trl

    with field_types.imported():
        return field_types.bare(field_types.hints(type(stage))["train"]) is trl.RewardConfig


def _lengths(stage: Any, step: Step) -> None:
    """Raises RecipeError for a length in the recipe that the model's context does not hold."""
    mistakes = Mistakes()
    for key, before in LENGTHS.items():
        tokens = step.options.get("train", {}).get(key)
        if isinstance(tokens, int):
            with mistakes.collected():
                lineage.require_context(step, stage.model, tokens, before, (*step.path, "train", key))
    mistakes.raise_any()


def _marks(stage: Any, step: Step) -> None:
    """Raises RecipeError where a loss on the assistant's words alone finds no marks of them in the chat template."""
    if not getattr(stage.train, "assistant_only_loss", False):
        return
    import trl

    tokenizer = inputs.tokenizer(stage.model, stage.train, step)
    template = getattr(tokenizer, "chat_template", None)
    template = template.get("default") if isinstance(template, dict) else template
    if not template or GENERATION.search(template):
        return
    try:
        trl.get_training_chat_template(tokenizer)  # the marked form of a template that trl knows
    except REFUSALS as error:
        raise RecipeError(str(error), (*step.path, "train", "assistant_only_loss")) from error
