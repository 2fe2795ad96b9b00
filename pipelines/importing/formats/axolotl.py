"""axolotl's configurations: SFT, reward models, and what its key `rl` asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trimtab.pipelines.importing import adapters, arguments, rewards, rows
from trimtab.pipelines.importing.draft import Draft
from trimtab.pipelines.importing.sources import Source
from trimtab.pipelines.planning.errors import RecipeError

KINDS = {"dpo": "dpo", "ipo": "dpo", "orpo": "dpo", "simpo": "dpo", "kto": "kto", "grpo": "grpo", "gdpo": "grpo"}
RENAMES = {
    "micro_batch_size": "train.per_device_train_batch_size",
    "eval_batch_size": "train.per_device_eval_batch_size",
    "num_epochs": "train.num_train_epochs",
    "optimizer": "train.optim",
    "lr_scheduler": "train.lr_scheduler_type",
    "dataset_processes": "train.dataset_num_proc",
    "rl_beta": "train.beta",
    "dpo_beta": "train.beta",
    "kto_desirable_weight": "train.desirable_weight",
    "kto_undesirable_weight": "train.undesirable_weight",
    "dpo_label_smoothing": "train.label_smoothing",
    "sample_packing": "train.packing",
    "eval_sample_packing": "train.eval_packing",
    "revision_of_model": "model.model_revision",
    "peft_use_dora": "model.use_dora",
    "peft_use_rslora": "model.use_rslora",
    "lora_modules_to_save": "model.lora_modules_to_save",
    "center_rewards_coefficient": "train.center_rewards_coefficient",
}
ATTENTION = {"flash_attention": "flash_attention_2", "sdp_attention": "sdpa", "eager_attention": "eager",
             "flex_attention": "flex_attention"}  # fmt: skip
TYPES = (  # of a dataset's `type`, with the layout that its rows have
    (r"sharegpt", "sharegpt"),
    (r"^alpaca|^gpteacher|^context_qa", "alpaca"),
    (r"intel|orca", "orca_dpo"),
)
OF_LIGER = arguments.REASONS["use_liger_kernel"]
REASONS = (  # of keys, by the first pattern that fits
    (r"^(model_type|tokenizer_type|tokenizer_config|tokenizer_use_\w+|processor_type|base_model_config|is_\w+_model"
     r"|is_\w+_derived_model|base_model_ignore_patterns|num_labels)$", "the model's own configuration says it"),
    (r"^(wandb_(project|entity))$", "stands once in the recipe: `wandb: {project: ..., entity: ...}`"),
    (r"^(wandb_\w+|mlflow_\w+|comet_\w+|use_(wandb|mlflow|comet|tensorboard|trackio)|swanlab_\w+)$",
     "the pipeline names runs after steps"),
    (r"^(strict|debug|local_rank|resume_from_checkpoint|auto_resume_from_checkpoints|resize_token_embeddings_to_32x"
     r"|dataset_prepared_path|shuffle_merged_datasets|skip_prepare_dataset|dataset_keep_in_memory|save_safetensors"
     r"|save_only_model|dataset_exact_deduplication|deduplicate_\w+|dataset_shard_\w+|experimental_\w+)$",
     "the pipeline does so in one way: rows are hashed, steps are resumed, weights are safetensors"),
    (r"^(hub_\w+|push_\w+|hf_use_auth_token)$", arguments.UPLOAD),
    (r"^(deepspeed|fsdp\w*|ddp\w*|tensor_parallel_size|context_parallel_size|sequence_parallel_degree|dp_\w+|ray_\w+"
     r"|use_ray|heads_k_stride|ring_attn_func|accelerator_config|device_map|max_memory|gpu_memory_limit)$",
     arguments.PROCESS),
    (r"^(special_tokens|tokens|added_tokens_overrides)$", "the tokenizer's own are used; `train.eos_token` and "
     "`train.pad_token` name others of its vocabulary"),
    (r"^(chat_template|chat_template_jinja|default_system_message)$", "conversations are rendered by the model's own "
     "chat template; sft and reward take another one by `train.chat_template_path`"),
    (r"^(train_on_inputs|roles_to_train|train_on_eot|train_on_eos)$", "`train.completion_only_loss` and "
     "`train.assistant_only_loss` say what is learned"),
    (r"^(pad_to_sequence_len|multipack_\w+|sample_packing_\w+|batch_flattening|curriculum_sampling|excess_\w+"
     r"|min_sample_len|sequence_len_overflow_handling)$",
     "rows are padded or packed by `train.padding_free` and `train.packing`"),
    (r"^(evals_per_epoch|saves_per_epoch)$", "`train.eval_steps` and `train.save_steps` below 1 are shares of it"),
    (r"^(eval_table_size|eval_max_new_tokens|do_bench_eval|eval_causal_lm_metrics|early_stopping_patience|lm_eval\w*"
     r"|loss_watchdog_\w+|bench_dataset)$", "a stage `evaluate` samples, scores and compares policies"),
    (r"^(liger_\w+|plugins|cut_cross_entropy|unsloth_\w+|lora_(mlp|qkv|o|embedding)_kernel|torchao_\w+|qat|fp8\w*"
     r"|quantization)$", OF_LIGER),
    (r"^(relora_\w+|lisa_\w+|lora_fan_in_fan_out|lora_on_cpu|loraplus_\w+|peft|peft_\w+|unfrozen_parameters|galore_\w+"
     r"|lora_model_dir|gptq\w*|bnb_config_kwargs|llama_4_\w+|noisy_embedding_alpha)$",
     "an optimizer, adapter or quantisation of another kind: `train.optim` and `model` take TRL's"),
    (r"^(gradient_checkpointing_offload|activation_offloading_legacy|low_cpu_mem_usage|torch_compile_\w+|xformers_attention"
     r"|s2_attention|flash_attn_\w+|flash_optimum|sageattention|gc_steps|include_tokens_per_second|profiler_steps"
     r"|use_\w+_kernels?)$", "a way to be fast or small that the pipeline does not have, or has by itself"),
    (r"^(lr_groups|lr_quadratic_warmup|cosine_\w+|embedding_lr\w*|lr_div_factor|adam_epsilon2|adam_beta3)$",
     "`train.lr_scheduler_kwargs` and `train.optim_args` take what transformers knows"),
    (r"^(rope_scaling|overrides_of_model_\w+|model_quantization_config\w*|trust_remote_code|remove_unused_columns)$",
     "a property of the model's own configuration, or without use here"),
    (r"^(rpo_alpha|orpo_alpha|simpo_gamma|cpo_alpha|dpo_norm_loss|dpo_use_\w+|dpo_padding_free)$",
     "an option of a loss that TRL does not have under this name: see `train.loss_type`"),
)  # fmt: skip


def recognises(source: Source) -> bool:
    """Whether a source has axolotl's key for the model, or calls it."""
    return "base_model" in source.values or "axolotl" in source.command


def translate(source: Source) -> list[Draft]:
    """The one stage that it is. Raises RecipeError for a method that is not here."""
    asked = source.values.get("rl")
    kind = "reward" if source.values.get("reward_model") else KINDS.get(str(asked), "" if asked else "sft")
    if not kind:
        raise RecipeError(f"{source.name}: rl {asked!r} is none of {', '.join(KINDS)}")
    draft = Draft.of(kind, source)
    if draft.look("base_model") is None:
        raise RecipeError(f"{source.name}: has no base_model")
    arguments.first_model(draft, "base_model")
    _method(draft)
    _adapter(draft)
    _data(draft)
    _numbers(draft)
    for key, to in RENAMES.items():
        if draft.look(key) not in (None, False):
            draft.keep(key, to) if to.endswith(f".{key}") else draft.rename(key, to)
        elif draft.left.get(key) is not None:
            draft.drop(key, "is false, which is the default")
    for key in list(draft.left):
        reason = next((why for pattern, why in REASONS if re.match(pattern, key)), None)
        if draft.left[key] is None:
            draft.drop(key, "is empty, which is to say: the default")
        elif reason:
            draft.drop(key, reason)
    arguments.translate(draft)
    arguments.finish(draft)
    return [draft]


def _method(draft: Draft) -> None:
    word = draft.look("rl")
    if draft.look("reward_model"):
        draft.settle("reward_model", "kind", "the kind of the stage")
    elif "reward_model" in draft.left:
        draft.drop("reward_model", "is false")
    if word is not None:
        draft.settle("rl", "kind", "the kind of the stage")
        if word == "ipo":
            draft.put("train.loss_type", "ipo")
        if word in ("orpo", "simpo"):
            draft.notes.append(f"{word} has no reference model; this is DPO with one, on the same pairs")
        if word == "simpo":
            draft.put("train.loss_type", "sigmoid_norm")
    if draft.kind == "grpo":
        _policy(draft)
    elif isinstance(draft.look("trl"), Mapping):
        draft.drop("trl", f"says nothing to a stage {draft.kind}")


def _policy(draft: Draft) -> None:
    """GRPO: what the block `trl` says, key by key, with the rewards in blocks of their own."""
    given = dict(draft.look("trl") or {})
    if "trl" in draft.left:
        draft.left.pop("trl")
    asked, weights = given.pop("reward_funcs", None) or [], given.pop("reward_weights", None) or []
    blocks: dict[str, Any] = {}
    for index, word in enumerate([asked] if isinstance(asked, str) else asked):
        label, block = rewards.named(draft, str(word))
        blocks[label] = block | ({"weight": weights[index]} if index < len(weights) and weights[index] != 1 else {})
    if not blocks:
        blocks["reward"] = rewards.stand_in(draft, "reward", "no reward is named: write one")
    draft.left |= {"trl.reward_funcs": asked, "trl.reward_weights": weights}
    draft.settle("trl.reward_funcs", "rewards", "one block for each, by the name that its curve will have")
    draft.settle("trl.reward_weights", "rewards", "`weight` in each reward's block")
    draft.put("rewards", blocks)
    for key, value in given.items():
        draft.left[key if key not in draft.left else f"trl.{key}"] = value


def _adapter(draft: Draft) -> None:
    word = draft.look("adapter")
    if word in ("lora", "qlora"):
        target = "lora_target_linear" if draft.look("lora_target_linear") else "lora_target_modules"
        if target == "lora_target_linear":
            draft.rename("lora_target_linear", "model.lora_target_modules", "all-linear")
            if "lora_target_modules" in draft.left:
                draft.drop("lora_target_modules", "`lora_target_linear` names every linear layer")
        adapters.on(draft, "adapter", rank="lora_r", alpha="lora_alpha", dropout="lora_dropout",
                    target="lora_target_modules")  # fmt: skip
        if word == "qlora" and not draft.look("load_in_4bit", "load_in_8bit"):
            draft.put("model.load_in_4bit", True)
        if word == "qlora" or draft.look("load_in_8bit"):
            draft.notes.append("quantised weights need bitsandbytes: pip install bitsandbytes")
    else:
        if "adapter" in draft.left:
            draft.drop("adapter", "there is none" if not word else f"{word} is not here: LoRA is")
        adapters.without(draft, "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_linear",
                         "lora_modules_to_save")  # fmt: skip
    if "lora_target_linear" in draft.left:
        draft.drop("lora_target_linear", "the layers are named one by one")


def _data(draft: Draft) -> None:
    for key, place in (("datasets", "data"), ("pretraining_dataset", "data"), ("test_datasets", "eval_data")):
        listed = draft.look(key)
        if not listed or place in draft.block:
            continue
        listed = listed if isinstance(listed, list) else [listed]
        entries = [_entry(draft, item if isinstance(item, Mapping) else {"path": item}) for item in listed]
        draft.change(key, place, rows.block(entries), "the layout of the rows stands at each dataset")
    if "data" not in draft.block:
        draft.put("data", rows.entry(draft, "DATA"))
    share = draft.look("val_set_size")
    if isinstance(share, float) and 0 < share < 1 and "eval_data" not in draft.block:
        draft.rename("val_set_size", "data.eval_fraction", why="by a hash of each prompt")
    elif "val_set_size" in draft.left:
        draft.drop("val_set_size", "a share of the prompts is kept apart by `eval_fraction` in `data`")
    if "eval_data" not in draft.block and "eval_fraction" not in draft.block["data"]:
        for key in ("eval_strategy", "evaluation_strategy", "eval_steps"):
            if draft.look(key) not in (None, "no"):
                draft.drop(key, "there are no rows to evaluate on")


def _entry(draft: Draft, given: Mapping[str, Any]) -> dict[str, Any]:
    """One dataset: its path, and the layout and the columns that its `type` and its fields say."""
    how = given.get("type")
    word = how if isinstance(how, str) else ""
    layout = next((layout for pattern, layout in TYPES if re.search(pattern, word)), None)
    columns = {
        to: given[field]
        for to, field in (("messages", "field_messages"), ("chosen", "field_chosen"), ("rejected", "field_rejected"))
        if given.get(field) not in (None, to, "conversations")
    }
    if isinstance(how, Mapping):
        columns |= {
            to: how[field]
            for to, field in (("prompt", "field_prompt"), ("chosen", "field_chosen"), ("rejected", "field_rejected"))
            if how.get(field) not in (None, to)
        }
    if draft.kind in ("dpo", "reward") and "messages" in columns:
        columns["prompt"] = columns.pop("messages")
    if given.get("field_messages") == "conversations" or (given.get("conversation") and not layout):
        layout = layout or "sharegpt"
    if word and not layout and "chat_template" not in word and word != "completion":
        draft.notes.append(
            f"rows of the type {word!r}: name their layout (docs/layouts.md), or give their columns the names that a "
            f"stage {draft.kind} reads"
        )
    source = given.get("path") or "DATA"
    files = given.get("data_files")
    if source in ("json", "csv", "parquet", "text") and files:
        source, files = (files[0] if isinstance(files, list) else files), None
    split = None if given.get("split") == "train" else given.get("split")
    return rows.entry(draft, source, name=given.get("name"), split=split, data_files=files, layout=layout,
                      columns=columns or None)  # fmt: skip


def _numbers(draft: Draft) -> None:
    """Keys whose values are written otherwise."""
    if draft.look("sequence_len") is not None:
        where = "data.max_prompt_tokens" if draft.kind == "grpo" else "train.max_length"
        draft.rename("sequence_len", where)
    for key in ("bf16", "fp16"):
        if draft.look(key) in ("auto", "full"):
            draft.change(key, f"train.{key}", True, f"{draft.look(key)!r} where the machine has it")
    for key, word in ATTENTION.items():
        if draft.look(key) is True:
            draft.rename(key, "model.attn_implementation", word)
        elif key in draft.left:
            draft.drop(key, "is not set")
    if draft.look("torch_dtype") is None and draft.at("train").get("bf16") and draft.kind == "grpo":
        draft.put("model.dtype", "bfloat16")
    if draft.look("optimizer") in ("muon", "adopt_adamw", "came_pytorch", "optimi_adamw", "ao_adamw_4bit", "dion"):
        draft.drop("optimizer", "transformers has no optimizer of this name: `train.optim` takes those it has")
    if draft.look("lr_scheduler") in ("rex", "one_cycle"):
        draft.drop("lr_scheduler", "transformers has no schedule of this name")
    if draft.look("gradient_checkpointing") in ("offload", "offload_disk"):
        why = "TRL offloads by `activation_offloading`"
        draft.change("gradient_checkpointing", "train.gradient_checkpointing", True, why)
