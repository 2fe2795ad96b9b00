"""LLaMA-Factory's configurations, with its registry of datasets where `dataset_info.json` is at hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trimtab.pipelines.importing import adapters, arguments, rewards, rows
from trimtab.pipelines.importing.draft import Draft
from trimtab.pipelines.importing.sources import Source
from trimtab.pipelines.planning.errors import RecipeError

KINDS = {"pt": "sft", "sft": "sft", "rm": "reward", "dpo": "dpo", "kto": "kto", "ppo": "ppo"}
OWN = {"finetuning_type", "cutoff_len", "dataset_dir", "pref_beta", "pref_loss", "template", "lora_rank", "stage"}
LOSSES = {"sigmoid": "sigmoid", "hinge": "hinge", "ipo": "ipo", "kto_pair": "apo_zero", "orpo": "sigmoid",
          "simpo": "sigmoid_norm", "bco_pair": "bco_pair"}  # fmt: skip
ATTENTION = {"fa2": "flash_attention_2", "sdpa": "sdpa", "disabled": "eager", "fa3": "flash_attention_3"}
HUB: dict[str, dict[str, Any]] = {  # names of its registry that stand for datasets of the hub
    "alpaca_en": {"hf_hub_url": "llamafactory/alpaca_en"},
    "alpaca_zh": {"hf_hub_url": "llamafactory/alpaca_zh"},
    "alpaca_gpt4_en": {"hf_hub_url": "llamafactory/alpaca_gpt4_en"},
    "alpaca_gpt4_zh": {"hf_hub_url": "llamafactory/alpaca_gpt4_zh"},
    "codealpaca": {"hf_hub_url": "sahil2801/CodeAlpaca-20k"},
    "dpo_mix_en": {"hf_hub_url": "llamafactory/DPO-En-Zh-20k", "subset": "en", "formatting": "sharegpt"},
    "dpo_mix_zh": {"hf_hub_url": "llamafactory/DPO-En-Zh-20k", "subset": "zh", "formatting": "sharegpt"},
    "glaive_toolcall_en": {"hf_hub_url": "llamafactory/glaive_toolcall_en", "formatting": "sharegpt"},
    "glaive_toolcall_zh": {"hf_hub_url": "llamafactory/glaive_toolcall_zh", "formatting": "sharegpt"},
    "kto_mix_en": {"hf_hub_url": "argilla/kto-mix-15k", "columns": {"messages": "completion"}},
    "lima": {"hf_hub_url": "llamafactory/lima", "formatting": "sharegpt"},
    "open_thoughts": {"hf_hub_url": "llamafactory/OpenThoughts-114k", "columns": {"messages": "messages"}},
    "orca_pairs": {"hf_hub_url": "Intel/orca_dpo_pairs", "layout": "orca_dpo"},
    "sharegpt4": {"hf_hub_url": "shibing624/sharegpt_gpt4", "formatting": "sharegpt"},
    "slimorca": {"hf_hub_url": "Open-Orca/SlimOrca", "formatting": "sharegpt"},
    "ultrachat_200k": {"hf_hub_url": "HuggingFaceH4/ultrachat_200k", "split": "train_sft", "columns": {}},
    "ultrafeedback": {"hf_hub_url": "llamafactory/ultrafeedback_binarized"},
}
PACKED = "rows are packed by `packing`, each attending to itself alone"
OPTIMIZER = "an optimizer or adapter of another kind: `train.optim` takes those of transformers"
PICTURES = "models here read text"
CURES: dict[str, str] = {
    **dict.fromkeys(("plot_loss", "include_effective_tokens_per_second"), "the report of the run has every curve"),
    **dict.fromkeys(("overwrite_cache", "tokenized_path", "preprocessing_batch_size", "cache_dir"),
                    "rows are tokenised once for each content"),
    **dict.fromkeys(("predict_with_generate", "num_beams", "max_new_tokens", "infer_backend", "export_dir",
                     "export_size", "export_device", "export_legacy_format", "infer_dtype", "do_sample"),
                    "belongs to prediction or export: a stage `sample` or `evaluate` does the first"),
    **dict.fromkeys(("image_max_pixels", "video_max_pixels", "image_min_pixels", "media_dir", "freeze_vision_tower",
                     "freeze_multi_modal_projector", "freeze_language_model", "video_fps", "audio_sampling_rate"),
                    PICTURES),
    **dict.fromkeys(("ref_model_adapters", "ref_model_quantization_bit", "reward_model_adapters", "create_new_adapter",
                     "reward_model_quantization_bit"), "models are complete ones: adapters are merged"),
    **dict.fromkeys(("use_galore", "use_badam", "use_apollo", "use_adam_mini", "use_muon", "loraplus_lr_ratio",
                     "pissa_init", "pissa_iter", "pissa_convert", "use_llama_pro", "use_swanlab",
                     "freeze_trainable_layers",
                     "freeze_extra_modules", "freeze_trainable_modules", "mixture_of_depths"), OPTIMIZER),
    **dict.fromkeys(("adapter_name_or_path", "adapter_folder"),
                    "an adapter of an earlier stage: chain its file in front, whose stage leaves a merged model"),
    **dict.fromkeys(("ray_run_name", "ray_storage_path", "ray_num_workers", "resources_per_worker",
                     "placement_strategy", "deepspeed"), arguments.PROCESS),
    "template": "conversations are rendered by the model's own chat template",
    "mask_history": "`train.assistant_only_loss: true` learns every answer of a conversation",
    "train_on_prompt": "`train.completion_only_loss: false` learns the prompt too",
    "default_system": "the rows say it: put a message of the role `system` in front of each prompt",
    "enable_thinking": "a column `chat_template_kwargs` says it of each row (docs/data.md)",
    "dataset_dir": "the names of the registry have become paths",
    "neat_packing": PACKED,
    "enable_liger_kernel": arguments.REASONS["use_liger_kernel"],
    "use_unsloth": arguments.REASONS["use_unsloth"],
    "use_unsloth_gc": arguments.REASONS["use_unsloth"],
    "upcast_layernorm": "`model.dtype: float32` with `train.bf16: true` keeps every weight in float32",
    "pure_bf16": "`model.dtype: bfloat16` does so",
    "resize_vocab": "a tokenizer comes with its model",
    "rope_scaling": "a property of the model: change it in its config.json",
    "low_cpu_mem_usage": "models are loaded so by themselves",
    "buffer_size": "rows are counted and hashed before a training: they are not streamed",
    "mix_strategy": "`weight` at each dataset mixes them",
    "simpo_gamma": "TRL's losses have no margin of that kind",
    "ppo_score_norm": "`normalize: true` in the reward model's block measures scores in its own standard deviations",
    "ppo_whiten_rewards": "advantages are whitened by `train.scale_rewards`",
    "reward_model_type": "said by the reward's `kind`",
    "compute_accuracy": "token accuracy is always recorded",
}  # fmt: skip


def recognises(source: Source) -> bool:
    """Whether a source has keys of LLaMA-Factory's, or calls it."""
    return len(OWN & source.values.keys()) >= 2 or "llamafactory" in source.command


def translate(source: Source) -> list[Draft]:
    """The one stage that it is. Raises RecipeError for a stage of another kind."""
    word = str(source.values.get("stage", "sft"))
    if word not in KINDS:
        raise RecipeError(f"{source.name}: stage {word!r} is none of {', '.join(KINDS)}")
    draft = Draft.of(KINDS[word], source)
    if "stage" in draft.left:
        draft.settle("stage", "kind", "the kind of the stage")
    if draft.look("model_name_or_path") is None:
        raise RecipeError(f"{source.name}: has no model_name_or_path")
    arguments.first_model(draft, "model_name_or_path")
    _tuning(draft)
    _data(draft)
    _preference(draft)
    if draft.kind == "ppo":
        _policy(draft)
    if draft.look("cutoff_len") is not None:
        where = "data.max_prompt_tokens" if draft.kind == "ppo" else "train.max_length"
        draft.rename("cutoff_len", where)
    if draft.look("flash_attn") in ATTENTION:
        draft.rename("flash_attn", "model.attn_implementation", ATTENTION[draft.look("flash_attn")])
    elif "flash_attn" in draft.left:
        draft.drop("flash_attn", "transformers chooses by itself")
    draft.drop_all(CURES)
    arguments.translate(draft)
    arguments.finish(draft)
    return [draft]


def _tuning(draft: Draft) -> None:
    how = draft.look("finetuning_type")
    if how == "lora" or (how is None and draft.look("lora_rank") is not None):
        key = "finetuning_type" if how else "lora_rank"
        if how is None:
            draft.put("model.use_peft", True)
            draft.rename("lora_rank", "model.lora_r")
        else:
            adapters.on(draft, key, rank="lora_rank", alpha="lora_alpha", dropout="lora_dropout", target="lora_target")
        whole = draft.look("additional_target")
        if whole is not None:
            modules = whole if isinstance(whole, list) else [part.strip() for part in str(whole).split(",")]
            draft.rename("additional_target", "model.lora_modules_to_save", modules)
        rank = draft.at("model").get("lora_r", 8)
        draft.block["model"].setdefault("lora_r", rank)
        draft.block["model"].setdefault("lora_alpha", 2 * rank)  # its defaults, which are not TRL's
        draft.block["model"].setdefault("lora_dropout", 0.0)
        if draft.kind == "ppo":
            draft.put("critics.trunk", "shared")
    elif how is not None:
        if how == "full":
            draft.change("finetuning_type", "model.use_peft", False, "every weight is trained")
        else:
            draft.drop("finetuning_type", f"{how} is not here: `use_peft: true` trains LoRA, without it all weights")
        adapters.without(draft, "lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target")
    adapters.bits(draft, "quantization_bit")
    for key in [key for key in draft.left if re.match(r"oft_|quantization_|double_quantization|lora_bf16", key)]:
        draft.drop(key, OPTIMIZER)


def _data(draft: Draft) -> None:
    limit = draft.look("max_samples")
    for key, place in (("dataset", "data"), ("eval_dataset", "eval_data")):
        listed = draft.look(key)
        if listed is None:
            continue
        listed = listed if isinstance(listed, list) else [part.strip() for part in str(listed).split(",")]
        entries = [_registered(draft, str(name)) for name in listed if name]
        for item in entries:
            item.update({"max_rows": limit} if isinstance(limit, int) else {})
        draft.change(key, place, rows.block(entries), "names of the registry, as paths")
    if "data" not in draft.block:
        draft.put("data", rows.entry(draft, "DATA"))
    if isinstance(limit, int):
        draft.rename("max_samples", "data.max_rows", limit)
        if "datasets" in draft.block["data"]:
            draft.block["data"].pop("max_rows")
    rows.held_out(draft, "val_size")


def _registered(draft: Draft, name: str) -> dict[str, Any]:
    """A dataset by its name in the registry: the one at hand, or the names that are known."""
    known = {**HUB, **_registry(draft)}.get(name)
    if known is None:
        return rows.entry(draft, name)
    source = known.get("hf_hub_url") or known.get("file_name") or known.get("ms_hub_url") or name
    if known.get("file_name") and not known.get("hf_hub_url"):
        source = str(Path(str(draft.look("dataset_dir") or "data")) / str(source))
    layout = known.get("layout") or ("sharegpt" if known.get("formatting") == "sharegpt" else None)
    tags = known.get("tags") or {}
    if tags.get("role_tag") == "role" or not (layout or known.get("columns") is None):
        layout = None  # messages with roles, or columns of other names
    elif layout is None and draft.kind != "ppo" and "columns" not in known:
        layout = "alpaca"
    return rows.entry(draft, source, name=known.get("subset"), split=known.get("split"), layout=layout)


def _registry(draft: Draft) -> dict[str, Any]:
    for folder in (Path(str(draft.look("dataset_dir") or "data")), draft.source.folder):
        file = draft.source.folder / folder / "dataset_info.json"
        if file.is_file():
            try:
                return dict(json.loads(file.read_text(encoding="utf-8")))
            except ValueError:
                raise RecipeError(f"{file} is not readable as JSON") from None
    return {}


def _preference(draft: Draft) -> None:
    if draft.kind not in ("dpo", "kto"):
        for key in [key for key in draft.left if key.startswith(("pref_", "kto_", "dpo_"))]:
            draft.drop(key, f"says nothing to a stage {draft.kind}")
        return
    for key, to in (("pref_beta", "beta"), ("dpo_beta", "beta"), ("kto_beta", "beta"),
                    ("dpo_label_smoothing", "label_smoothing"), ("kto_chosen_weight", "desirable_weight"),
                    ("kto_rejected_weight", "undesirable_weight")):  # fmt: skip
        if draft.look(key) is not None:
            draft.rename(key, f"train.{to}")
    mixed = draft.look("pref_ftx", "dpo_ftx")
    loss = LOSSES.get(str(draft.look("pref_loss", "dpo_loss") or "sigmoid"), "sigmoid")
    for key in ("pref_loss", "dpo_loss"):
        if draft.look(key) in ("orpo", "simpo"):
            draft.change(key, "train.loss_type", loss, f"{draft.look(key)} has no reference model, DPO has one")
        elif draft.look(key) is not None:
            draft.rename(key, "train.loss_type", loss)
    for key in ("pref_ftx", "dpo_ftx"):
        if draft.look(key) is not None:
            if mixed:
                draft.change(key, "train.loss_weights", [1.0, mixed], "the likelihood of the chosen answer, mixed in")
                draft.put("train.loss_type", [loss, "sft"])
            else:
                draft.drop(key, "is 0: nothing is mixed in")


def _policy(draft: Draft) -> None:
    """PPO: its reward model, and the lengths that are sampled."""
    model = draft.look("reward_model")
    if model is not None and draft.look("reward_model_type") == "api":
        block = {"kind": "remote", "protocol": "llamafactory", "url": model}
        draft.change("reward_model", "rewards", {"reward": block}, "a server's scores")
    elif model is not None:
        draft.change("reward_model", "rewards", {"reward": rewards.model(draft, model)}, "one block for each reward")
    else:
        draft.put("rewards", {"reward": rewards.stand_in(draft, "reward", "no reward model is named: write one")})
    for key, to in (("max_new_tokens", "max_completion_length"), ("top_k", "top_k"), ("top_p", "top_p"),
                    ("temperature", "temperature"), ("ppo_epochs", "num_iterations")):  # fmt: skip
        if draft.look(key) is not None:
            draft.rename(key, f"train.{to}")
    if isinstance(draft.look("ppo_target"), int | float):
        draft.drop("ppo_target", "a KL in nats of a whole answer: `target_kl` is in nats per token")
    if "ppo_buffer_size" in draft.left:
        draft.rename("ppo_buffer_size", "train.steps_per_generation")
