"""Keys of the Hugging Face family: training arguments and the model's, those of today and those of yesterday.

The keys of today are the fields of upstream's classes. What follows are those that other versions had, with what says
the same now, and those that a pipeline has its own way for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from trimtab.pipelines.importing import names
from trimtab.pipelines.importing.draft import Draft
from trimtab.pipelines.planning import credentials, kinds, schema, upstream
from trimtab.pipelines.planning.errors import OWNED, RecipeError
from trimtab.pipelines.planning.field_types import bare, hints, training
from trimtab.pipelines.planning.yaml_words import settled

UPLOAD = "nothing is uploaded while training: a finished stage is a complete model in its `output` folder"
PROCESS = "steps run on what `accelerate` in the stage or the words behind `--` say, by default on all that is there"
REASONS = {  # keys without a place in a stage, and why, or what to do instead
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push"), UPLOAD),
    **dict.fromkeys(("push_to_hub_revision", "hub_model_revision", "hub_revision", "push_to_hub_model_id"), UPLOAD),
    **dict.fromkeys(("deepspeed", "fsdp", "fsdp_config", "ddp_timeout", "local_rank"), PROCESS),
    **dict.fromkeys(("num_processes", "num_machines", "main_process_port", "ddp_backend"), PROCESS),
    "output_dir": "every step has a folder of its own under `output_dir` of the recipe",
    "overwrite_output_dir": "a step that is done is never run again, and one that was interrupted goes on",
    "resume_from_checkpoint": OWNED["resume_from_checkpoint"],
    "run_name": OWNED["run_name"],
    "hub_token": OWNED["hub_token"],
    "do_train": "a stage trains",
    "do_eval": "`eval_data` is evaluated at the end of the stage, and as `eval_strategy` says",
    "do_predict": "a stage `evaluate` samples and scores",
    "save_only_model": "a training goes on exactly only with the state of its optimizer",
    "save_safetensors": "weights are always saved as safetensors",
    "ignore_data_skip": "a training that goes on does not begin its rows anew",
    "max_prompt_length": "TRL has removed it: pairs are cut at `max_length`; `filter` in `data` leaves rows out",
    "max_target_length": "TRL has removed it: `max_length` cuts the whole",
    "trust_remote_code": "code of a model's repository needs your consent first: docs/trust.md",
    "generate_during_eval": "a stage `evaluate` samples, scores and compares policies",
    "dataset_kwargs": "rows are rendered in one way, by the model's chat template",
    "use_liger_kernel": "TRL computes the head's loss in pieces by itself; the kernels need another package",
    "include_tokens_per_second": "tokens and seconds are recorded of every step",
    "include_num_input_tokens_seen": "tokens are recorded of every step",
    "wandb_project": "stands once in the recipe: `wandb: {project: ...}`",
    "wandb_entity": "stands once in the recipe: `wandb: {entity: ...}`",
    "wandb_run_group": "stands once in the recipe: `wandb: {group: ...}`",
    "wandb_log_unique_prompts": "every completion of a rollout is recorded",
    "callbacks": "callbacks are code: a stage of your own does what one did (docs/extending.md)",
    "benchmarks": "a stage `evaluate` compares policies; harnesses run on the finished folder",
    "ref_model": "the reference is the model that the stage starts from",
    "ref_model_revision": "the reference is the model that the stage starts from",
    "model_adapter_name": "adapters are merged when a stage is done",
    "ref_adapter_name": "the reference is the model that the stage starts from",
    "is_encoder_decoder": "language models are decoders here",
    "tokenizer_name_or_path": "the tokenizer is the model's",
    "tokenizer_kwargs": "the tokenizer is the model's",
    "truncation_side": "what is too long is cut at its end",
    "model_code_revision": "no code of a model's repository is run",
    "base_model_revision": "adapters are merged when a stage is done",
    "dataset_batch_size": "rows are tokenised in batches of a fixed size",
    "no_remove_unused_columns": "columns that a stage does not read are left where they are",
    "remove_unused_columns": "columns that a stage does not read are left where they are",
    "vllm_device": "vLLM runs beside the policy, on the same devices",
    "vllm_dtype": "vLLM takes the dtype of the model",
    "vllm_enable_prefix_caching": "TRL has removed it: vLLM does so by itself",
    "use_unsloth": "Unsloth replaces the model's code: not supported",
    "dataset_streaming": "rows are counted and hashed before a training: they are not streamed",
    "ignore_bias_buffers": "belongs to models of another time",
    "gradient_checkpointing_use_reentrant": "write `gradient_checkpointing_kwargs: {use_reentrant: ...}`",
}
RENAMES: dict[str, tuple[str, Callable[[Any], Any] | None]] = {  # their key -> ours, and the value that says the same
    "torch_dtype": ("model.dtype", None),
    "warmup_ratio": ("train.warmup_steps", None),
    "max_seq_length": ("train.max_length", None),
    "max_seq_len": ("train.max_length", None),
    "evaluation_strategy": ("train.eval_strategy", None),
    "preprocessing_num_workers": ("train.dataset_num_proc", None),
    "use_flash_attention_2": ("model.attn_implementation", lambda on: "flash_attention_2" if on else None),
    "use_flash_attn": ("model.attn_implementation", lambda on: "flash_attention_2" if on else None),
    "vllm_max_model_len": ("train.vllm_max_model_length", None),
    "vllm_guided_decoding_regex": ("train.vllm_structured_outputs_regex", None),
    "group_by_length": ("train.train_sampling_strategy", lambda on: "group_by_length" if on else None),
    "bnb_4bit_use_double_quant": ("model.use_bnb_nested_quant", None),
    "use_double_quant": ("model.use_bnb_nested_quant", None),
    "train_batch_size": ("train.per_device_train_batch_size", None),
    "eval_batch_size": ("train.per_device_eval_batch_size", None),
    "no_cuda": ("train.use_cpu", None),
    "num_completions": ("train.num_generations", None),
}


def translate(draft: Draft) -> None:
    """Accounts for all keys that the family has: the model's, the arguments of its trainer, and old ones."""
    _special(draft)
    model = _fields(upstream.outline("ModelConfig"))
    config = _config(draft.kind)
    train = _fields(config)
    for key in list(draft.left):
        value = settled(draft.left[key])
        if credentials.is_secret(key, value):
            draft.drop(key, OWNED["hub_token"])
        elif value is None:
            draft.drop(key, "is null, which is to say: the default")
        elif key in REASONS:
            draft.drop(key, REASONS[key])
        elif key in RENAMES:
            to, convert = RENAMES[key]
            said = convert(value) if convert else value
            if said is None:
                draft.drop(key, f"{value} is the default")
            elif to.startswith("train.") and to.removeprefix("train.") not in train:
                draft.drop(key, f"{config.__name__} has no {to.removeprefix('train.')}")
            else:
                draft.rename(key, to, said)
        elif key in model:
            _keep(draft, key, f"model.{key}", model[key])
        elif key in train:
            _keep(draft, key, f"train.{key}", train[key])


def finish(draft: Draft) -> None:
    """Calls unknown what nothing has accounted for."""
    for key in list(draft.left):
        if draft.left[key] is None:
            draft.drop(key, "is null, which is to say: the default")
        else:
            draft.unknown(key)


def first_model(draft: Draft, key: str) -> None:
    """Puts the model's name in its place, with what is to be done where it is not here."""
    name, note = names.settle(draft.left[key], draft.source.folder)
    path = "model.model_name_or_path"
    if note:
        draft.change(key, path, name, note)
        draft.notes.append(note)
    elif key == "model_name_or_path":
        draft.keep(key, path)
        draft.put(path, name)
    else:
        draft.rename(key, path, name)


def _special(draft: Draft) -> None:
    """Keys whose values have changed their meaning."""
    if draft.look("save_total_limit") == 1:
        draft.change("save_total_limit", "train.save_total_limit", 2, "1 leaves nothing to go on from after a crash")
    if draft.look("lr_scheduler_type") is not None and not isinstance(draft.look("lr_scheduler_type"), str):
        draft.drop("lr_scheduler_type", "is no word")
    if draft.look("seed") is not None:
        draft.rename("seed", "seed")
    if "torch_dtype" in draft.left and draft.look("torch_dtype") is None:
        draft.drop("torch_dtype", "is null: the dtype of the checkpoint")
    if draft.look("warmup_steps") is not None and draft.look("warmup_ratio") is not None:
        draft.drop("warmup_ratio", "`warmup_steps` is given too")
    if draft.look("optim") in ("adamw_hf",):
        draft.change("optim", "train.optim", "adamw_torch", "transformers has removed adamw_hf")
    if isinstance(draft.look("gradient_checkpointing"), str):
        draft.change("gradient_checkpointing", "train.gradient_checkpointing", True, "a word of Unsloth's")


def _keep(draft: Draft, key: str, to: str, hint: Any) -> None:
    try:
        schema.coerce(draft.left[key], hint, (key,))
    except RecipeError as error:
        draft.drop(key, error.message)
    else:
        draft.keep(key, to)


def _config(kind: str) -> Any:
    """The class of upstream's that a stage of this kind takes its training arguments from."""
    stage = kinds.find(kinds.STAGES, kind)
    return bare(hints(stage)[training(stage) or ""])


def _fields(cls: Any) -> dict[str, Any]:
    types = hints(cls)
    return {field.name: types[field.name] for field in dataclasses.fields(cls) if field.name in types}
