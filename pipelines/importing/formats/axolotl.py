"""axolotl's configurations: SFT, reward models, and what its key `rl` asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trimtab.pipelines.importing import adapters, arguments, rewards, rows
from trimtab.pipelines.importing.draft import Draft
from trimtab.pipelines.importing.formats._axolotl_keys import ATTENTION, REASONS, RENAMES
from trimtab.pipelines.importing.sources import Source
from trimtab.pipelines.planning.errors import RecipeError

KINDS = {"dpo": "dpo", "ipo": "dpo", "orpo": "dpo", "simpo": "dpo", "kto": "kto", "grpo": "grpo", "gdpo": "grpo"}
TYPES = (  # of a dataset's `type`, with the layout that its rows have
    (r"sharegpt", "sharegpt"),
    (r"^alpaca|^gpteacher|^context_qa", "alpaca"),
    (r"intel|orca", "orca_dpo"),
)


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
    draft.drop_matching(REASONS)
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
    rows.held_out(draft, "val_set_size")


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
