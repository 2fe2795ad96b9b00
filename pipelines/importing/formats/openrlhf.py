"""OpenRLHF's launch lines, those with flat flags (`--pretrain`) and those with dotted ones (`--actor.adam.lr`)."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

from trimtab.pipelines.importing import adapters, arguments, rewards, rows
from trimtab.pipelines.importing.draft import Draft
from trimtab.pipelines.importing.formats._openrlhf_flags import FLAT, REASONS, RENAMES
from trimtab.pipelines.importing.sources import Source
from trimtab.pipelines.planning import field_types, kinds
from trimtab.pipelines.planning.errors import RecipeError

PROGRAMS = (  # in the words of the command
    ("sft", r"train_sft|continue_pretrain"),
    ("reward", r"train_rm\b|train_rm\.py"),
    ("dpo", r"train_dpo|iterative_dpo"),
    ("kto", r"train_kto"),
    ("distill", r"train_opd"),
    ("ppo", r"train_ppo|train_rl"),
)
ESTIMATORS = {  # of advantages, with the kind that has them
    "gae": "ppo",
    "group_norm": "grpo",
    "dr_grpo": "grpo",
    "reinforce": "grpo",
    "reinforce_baseline": "grpo",
    "rloo": "rloo",
}


def recognises(source: Source) -> bool:
    """Whether a source is a launch of one of its programs."""
    return "openrlhf" in source.command or bool(
        re.search(r"train_(?:sft|rm|dpo|kto|ppo|ppo_ray|opd)\.py", source.command)
    )


def translate(source: Source) -> list[Draft]:
    """The one stage that it is. Raises RecipeError for a program that is not known."""
    said = [*source.program, *(str(value) for value in source.values.values() if "openrlhf" in str(value))]
    kind = next((kind for kind, pattern in PROGRAMS if re.search(pattern, " ".join(said))), None)
    if kind is None:
        raise RecipeError(f"{source.name}: {source.command}: none of sft, rm, dpo, kto, ppo and opd")
    draft = Draft.of(kind, source)
    dotted = {key: FLAT[key] for key in draft.left if key in FLAT}
    draft.left = {dotted.get(key, key): value for key, value in draft.left.items()}
    if kind == "ppo":
        draft.kind = ESTIMATORS.get(str(draft.look("advantage_estimator") or "gae"), "grpo")
    _model(draft)
    _data(draft)
    if draft.takes_prompts():
        _policy(draft)
    _batch(draft)
    _rest(draft)
    written = {flat: key for key, flat in dotted.items()}
    draft.entries = [replace(entry, key=written.get(entry.key, entry.key)) for entry in draft.entries]
    return [draft]


def _model(draft: Draft) -> None:
    if draft.look("pretrain") is None:
        raise RecipeError(f"{draft.source.name}: names no model (--pretrain)")
    arguments.first_model(draft, "pretrain")
    if draft.look("teacher") is not None:
        draft.rename("teacher", "teacher", {"model_name_or_path": draft.look("teacher")})
    if (draft.look("lora_rank") or 0) > 0:
        draft.put("model.use_peft", True)
        draft.rename("lora_rank", "model.lora_r")
        draft.put("model.lora_target_modules", "all-linear")
        for key in ("lora_alpha", "lora_dropout"):
            if draft.look(key) is not None:
                draft.keep(key, f"model.{key}")
        if draft.look("target_modules") not in (None, "all-linear"):
            draft.rename("target_modules", "model.lora_target_modules")
        if draft.kind == "ppo":
            draft.put("critics.trunk", "shared")
    adapters.without(draft, "lora_rank", "lora_alpha", "lora_dropout", "target_modules")
    for key in ("bf16", "param_dtype"):
        if draft.look(key) in (True, "bf16"):
            draft.change(key, "train.bf16", True, "weights in float32, arithmetic in bfloat16")
    if draft.look("flash_attn") is True:
        draft.rename("flash_attn", "model.attn_implementation", "flash_attention_2")


def _data(draft: Draft) -> None:
    key = "prompt_data" if draft.look("prompt_data") is not None else "dataset"
    columns = {
        to: draft.look(flag)
        for to, flag in _columns(draft)
        if draft.look(flag) not in (None, to, "messages") and isinstance(draft.look(flag), str)
    }
    limit = draft.look("max_samples")
    sides = (("data", key, ("train_split", "prompt_split")), ("eval_data", "eval_dataset", ("eval_split",)))
    for place, flag, of_split in sides:
        listed = draft.look(flag)
        if listed is None:
            continue
        listed = listed if isinstance(listed, list) else [part for part in str(listed).split(",") if part]
        shares = [share for share in str(draft.look(f"{flag}_probs") or "").split(",") if share]
        split = draft.look(*of_split)
        entries = []
        for index, name in enumerate(listed):
            weight = float(shares[index]) if len(shares) == len(listed) > 1 else None
            source, at, inner = str(name).partition("@")  # org/name@folder
            entries.append(rows.entry(draft, source, data_dir=inner if at else None, weight=weight,
                                      split=None if split == "train" else split, columns=columns or None))  # fmt: skip
        of_all = {"max_rows": limit} if place == "data" and isinstance(limit, int) else {}
        draft.change(flag, place, rows.block(entries, **of_all), "columns have the names that the stage reads")
    if "data" not in draft.block:
        draft.put("data", rows.entry(draft, "DATA"))
    for flag in ("dataset_probs", "prompt_data_probs"):
        if draft.look(flag) is not None:
            draft.settle(flag, "data", "`weight` stands at each dataset")
    for to, flag in _columns(draft):
        if flag in draft.left and to in columns:
            draft.settle(flag, "data", f"the column that is read as `{to}`")
        elif flag in draft.left:
            draft.drop(flag, f"`{draft.look(flag)}` is read by itself")
    if isinstance(limit, int):
        draft.rename("max_samples", "data.max_rows", limit)


def _columns(draft: Draft) -> tuple[tuple[str, str], ...]:
    """Columns that a stage reads, with the flags that name them."""
    if draft.kind == "sft":
        return (("prompt", "input_key"), ("completion", "output_key"))
    if draft.kind in ("dpo", "reward"):
        return (("prompt", "prompt_key"), ("chosen", "chosen_key"), ("rejected", "rejected_key"))
    return (("prompt", "input_key"),)


def _policy(draft: Draft) -> None:
    """What samples: its rewards, its prompts, and how many answers are sampled at once."""
    model, url = draft.look("reward_pretrain"), draft.look("remote_rm_url")
    label = draft.look("label_key")
    blocks: dict[str, Any] = {}
    for index, name in enumerate(str(model).split(",") if model else ()):
        blocks[f"reward{index or ''}"] = rewards.model(draft, name)
    if isinstance(url, str) and url.startswith("http"):
        addresses = url.split(",")
        tokenizer = draft.at("model")["model_name_or_path"]
        block = {"kind": "remote", "url": addresses if len(addresses) > 1 else url, "tokenizer": tokenizer}
        blocks["remote"] = block | ({"label": label} if label else {})
    elif isinstance(url, str):
        blocks["function"] = rewards.function(draft, url, "openrlhf_function", **({"label": label} if label else {}))
    if not blocks and draft.kind != "distill":
        agent = draft.look("agent_func_path")
        why = f"{agent} plays turns: see `environment_factory` of a stage grpo"
        blocks["reward"] = rewards.stand_in(draft, "reward", why if agent else "no reward is named: write one")
    if draft.kind != "distill":
        for flag in ("reward_pretrain", "remote_rm_url"):
            if draft.look(flag) is not None:
                draft.settle(flag, "rewards", "one block for each reward")
        draft.put("rewards", blocks)
        if label and any("label" in block for block in blocks.values()):
            draft.settle("label_key", "rewards", "the column that becomes `labels`")
    estimator = draft.look("advantage_estimator")
    if estimator is not None:
        loss = "dr_grpo" if estimator == "dr_grpo" else None
        critic = "a critic" if draft.kind == "ppo" else "no critic"
        draft.settle("advantage_estimator", "kind", f"{estimator}: {critic}")
        if loss:
            draft.put("train.loss_type", loss)
        if estimator.startswith("reinforce"):
            draft.put("train.scale_rewards", "batch")
    rows.prompts(draft, "prompt_max_len")
    clip = draft.look("eps_clip_low_high")
    if isinstance(clip, list) and len(clip) == 2:
        draft.rename("eps_clip_low_high", "train.epsilon_high", clip[1])
        draft.put("train.epsilon", clip[0])
    if draft.look("max_len") is not None and draft.look("generate_max_len") is None:
        prompt = draft.at("data").get("max_prompt_tokens", draft.look("max_len") // 2)
        answer = draft.look("max_len") - prompt
        draft.change("max_len", "train.max_completion_length", answer, "it was of prompt and answer together")
        draft.put("data.max_prompt_tokens", prompt)
    if draft.look("kl_target") is not None and draft.kind != "ppo":
        draft.drop("kl_target", "`kind: constrained` adapts the KL's coefficient to a target")
    if "max_epochs" in draft.left:
        draft.rename("max_epochs", "train.num_iterations", why="passes over a rollout")
    episodes = draft.look("num_episodes")
    if isinstance(episodes, int):
        draft.rename("num_episodes", "train.num_train_epochs", why="passes over the prompts")


def _batch(draft: Draft) -> None:
    """The global batch, in rows; micro-batches are the most that fit, and a rollout is completions."""
    size, micro = draft.look("train_batch_size"), draft.look("micro_train_batch_size")
    answers = draft.look("n_samples_per_prompt") or 1
    in_groups = "num_generations" in field_types.training_defaults(kinds.find(kinds.STAGES, draft.kind))
    if in_groups and answers < 2:
        answers = 2
        if draft.look("n_samples_per_prompt") is not None:
            draft.change("n_samples_per_prompt", "train.num_generations", 2, "TRL samples two answers or more")
        else:
            draft.put("train.num_generations", 2)
    if isinstance(size, int):
        whole = math.ceil(size / answers) * answers if draft.takes_prompts() else size
        draft.rename("train_batch_size", "batch_size", whole)
    if isinstance(micro, int):
        draft.rename("micro_train_batch_size", "train.per_device_train_batch_size")
    prompts = draft.look("rollout_batch_size")
    if isinstance(prompts, int) and in_groups:
        rollout = prompts * answers
        if "batch_size" in draft.block and rollout % draft.block["batch_size"] == 0:
            draft.change("rollout_batch_size", "train.generation_batch_size", rollout, "in completions")
        else:
            draft.drop("rollout_batch_size", "a rollout is a multiple of the batch: `train.generation_batch_size`")


def _rest(draft: Draft) -> None:
    steps = draft.look("save_steps")
    if isinstance(steps, int) and steps < 1:
        draft.drop("save_steps", "-1 saves at the end alone: a training that cannot go on is not wanted here")
    if draft.kind == "sft" and draft.look("packing_samples"):
        draft.rename("packing_samples", "train.packing")
    if draft.kind == "dpo" and draft.look("ipo"):
        draft.rename("ipo", "train.loss_type", "ipo")
    for key, to in RENAMES.items():
        if draft.look(key) is not None:
            draft.keep(key, to) if to == f"train.{key}" else draft.rename(key, to)
    if "max_epochs" in draft.left:
        draft.rename("max_epochs", "train.num_train_epochs")
    arguments.translate(draft)
    draft.drop_matching(REASONS)
    arguments.finish(draft)
