"""What a trainer's models compute twice, they compute once: packed rows."""

from __future__ import annotations

from typing import Any


def compute_once(trainer: Any) -> None:
    """Packs the rows of the trainer's policy and of its reference, where that can be."""
    from trimtab.rewards._packing import pack

    for model in (trainer.model, getattr(trainer, "ref_model", None)):
        if model is not None:
            pack(trainer.accelerator.unwrap_model(model))
