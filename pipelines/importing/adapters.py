"""Adapters and quantisation of other programs, as the keys of TRL's ModelConfig."""

from __future__ import annotations

from typing import Any

from trimtab.pipelines.importing.draft import Draft

EVERY = ("all", "all-linear", ["all"])  # words for every linear layer


def on(draft: Draft, key: str, *, rank: str, alpha: str, dropout: str, target: str) -> None:
    """Turns LoRA on, for the key that asks for it, with the keys that say how."""
    draft.change(key, "model.use_peft", True, "LoRA; the artifact is the model with the adapter merged into it")
    for name, to in ((rank, "lora_r"), (alpha, "lora_alpha"), (dropout, "lora_dropout")):
        if draft.look(name) is not None:
            draft.rename(name, f"model.{to}") if name != to else draft.keep(name, f"model.{to}")
    if draft.look(target) is not None:
        modules = draft.look(target)
        modules = modules if isinstance(modules, list) else [part.strip() for part in str(modules).split(",")]
        every = modules in EVERY or draft.look(target) in EVERY
        draft.rename(target, "model.lora_target_modules", "all-linear" if every else modules)
    elif "lora_target_modules" not in draft.at("model"):
        draft.put("model.lora_target_modules", "all-linear")


def without(draft: Draft, *keys: str) -> None:
    """Leaves out how an adapter would be, where there is none."""
    for key in keys:
        if key in draft.left:
            draft.drop(key, "there is no adapter")


def bits(draft: Draft, key: str) -> None:
    """Quantised weights, by their bits."""
    count: Any = draft.look(key)
    if count in (4, 8):
        draft.rename(key, f"model.load_in_{count}bit", True)
        draft.notes.append("quantised weights need bitsandbytes: pip install bitsandbytes")
    elif count is not None:
        draft.drop(key, "weights are quantised to 4 or 8 bits")
