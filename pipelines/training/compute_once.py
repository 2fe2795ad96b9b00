"""What a trainer's models compute twice, they compute once: packed rows, and prompts that are read once."""

from __future__ import annotations

from typing import Any


def compute_once(trainer: Any) -> None:
    """Packs the rows of the trainer's policy and of its reference, and gives it our sampler where it samples."""
    from trimtab.pipelines.sampling import rollouts
    from trimtab.pipelines.training import arithmetic
    from trimtab.rewards._packing import pack

    arithmetic.settle(trainer)
    for model in (trainer.model, getattr(trainer, "ref_model", None)):
        if model is not None:
            pack(trainer.accelerator.unwrap_model(model))
    if hasattr(trainer, "sampler"):
        trainer.sampler = rollouts.draw
