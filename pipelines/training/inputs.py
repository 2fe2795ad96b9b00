"""What a trainer is given: the tokenizer as it will see it, its model and configuration, and its datasets."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trl

from trimtab.pipelines.planning import adapters, hub
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.trainers.seams.engines import on_one_device

if TYPE_CHECKING:
    from trimtab.pipelines.data.audit.checking import Audit
    from trimtab.pipelines.planning.recipe import Step


def tokenizer(model: trl.ModelConfig, train: Any, step: Step) -> Any | None:
    """The tokenizer as the trainer will see it, or None while a step above has still to make the model."""
    place, name = (*step.path, "model", "model_name_or_path"), model.model_name_or_path
    if not name:
        raise RecipeError("required key is missing: a local path, a hub name or $stage", place)
    if step.pending(name):
        return None
    if name.startswith(("/", "./", "../", "~")) and not Path(name).expanduser().exists():
        raise RecipeError(f"no such model: {name}", place)
    hub.require(name, place)
    from transformers import AutoTokenizer

    try:
        source, revision = adapters.source(name, model.model_revision, adapters.TOKENIZER)
        tokens = AutoTokenizer.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        message = f"cannot load the tokenizer of {name}: {error}"
        raise hub.unreachable(name, place) or RecipeError(message, place) from error
    return as_trained(tokens, train, step)


def as_trained(tokenizer: Any, train: Any, step: Step) -> Any:
    """A copy of a tokenizer with the tokens and the chat template that training arguments give it."""
    tokens = copy.deepcopy(tokenizer)
    for key in ("eos_token", "pad_token"):
        token = getattr(train, key, None)
        if token is not None:
            if token not in tokens.get_vocab():
                name = tokens.name_or_path
                raise RecipeError(f"{token!r} is not in the vocabulary of {name}", (*step.path, "train", key))
            setattr(tokens, key, token)
    template = getattr(train, "chat_template_path", None)
    if template and Path(template).is_file():
        tokens.chat_template = Path(template).read_text()
    elif template:
        tokens.chat_template = _template_of(template, (*step.path, "train", "chat_template_path"))
    return tokens


def _template_of(name: str, place: tuple[str, ...]) -> str | None:
    """The chat template of another model. Raises RecipeError where there is no such model."""
    from transformers import AutoTokenizer

    hub.require(name, place)
    try:
        return AutoTokenizer.from_pretrained(name).chat_template
    except (OSError, ValueError) as error:
        shipped = Path(trl.__path__[0]) / "chat_templates"
        message = f"{name} is neither a file nor a model with a tokenizer: give a Jinja file, as those in {shipped}"
        raise hub.unreachable(name, place) or RecipeError(message, place) from error


def policy(model: trl.ModelConfig, train: Any) -> dict[str, Any]:
    """The trainer's `model`, `args`, `peft_config` and `quantization_config`, as trl's own scripts make them.

    The model goes in as a path, so that loading it under ZeRO-3 or FSDP stays trl's business.
    """
    on_one_device(train)
    train.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(train.model_init_kwargs or {}),
    }
    return {
        "model": model.model_name_or_path,
        "args": train,
        "peft_config": trl.get_peft_config(model),
        "quantization_config": trl.get_quantization_config(model),
    }


def audit(model: trl.ModelConfig, train: Any, actions: Mapping[str, Any], step: Step, *, room: int | None) -> Audit:
    """The audit of rows that `model` is trained on, or of prompts that leave `room` for an answer in its context."""
    from trimtab.pipelines.data.audit.checking import Audit, Reader
    from trimtab.pipelines.training import lineage

    tokens, name = tokenizer(model, train, step), str(model.model_name_or_path)
    if room is None:
        return Audit(step, actions, tokens, train)
    if tokens is not None:
        return Audit(step, actions, tokens, train, [Reader(name, tokens, context(model), room)])
    made = lineage.ahead(step, name)
    if made is None:
        return Audit(step, actions, None, train)
    tokens = as_trained(made[0], train, step)
    return Audit(step, actions, tokens, train, [Reader(name, tokens, made[1], room)])


def context(model: trl.ModelConfig) -> int | None:
    """The longest text that a model reads, in tokens, or None where its configuration does not say."""
    hub.require(str(model.model_name_or_path), ("model", "model_name_or_path"))
    from transformers import AutoConfig

    name, revision = adapters.source(str(model.model_name_or_path), model.model_revision, adapters.MODEL)
    config = AutoConfig.from_pretrained(name, revision=revision)
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def splits(stage: Any, step: Step) -> dict[str, Any]:
    """The trainer's `train_dataset` and `eval_dataset`, without the rows that the audit drops, which are counted.

    One process of a machine looks first; the others find what it has found.
    """
    from accelerate import PartialState

    audit, forms = stage.audit_of(step), stage.reads()
    held_out, held_out_counts = None, {}
    with PartialState().local_main_process_first():
        rows, counts = audit.kept(stage.data, "data", forms["data"], stage.eval_data)
        if stage.eval_data:
            held_out, held_out_counts = audit.kept(stage.eval_data, "eval_data", forms["eval_data"])
    tracking.log(counts | held_out_counts)
    return {"train_dataset": rows, "eval_dataset": held_out}
