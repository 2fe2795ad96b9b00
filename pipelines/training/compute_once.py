"""What a trainer's models compute twice, they compute once: packed rows, and prompts that are read once."""

from __future__ import annotations

from typing import Any

ROLLOUTS = 256  # completions that a trainer samples at once


def compute_once(trainer: Any) -> None:
    """Packs the rows of the trainer's models, and samples its rollouts by our sampler, where that can be."""
    from trimtab.pipelines.sampling.generating import sample_instead
    from trimtab.pipelines.trainers.seams.engines import sharding
    from trimtab.rewards._packing import pack

    for model in (trainer.model, getattr(trainer, "ref_model", None)):
        if model is not None:
            pack(trainer.accelerator.unwrap_model(model))
    samples = hasattr(trainer, "generation_config")
    if samples and sharding() is None:  # ranks with parts of a model have to take the same steps
        sample_instead(trainer.model, ROLLOUTS)
