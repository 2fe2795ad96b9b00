"""DPO whose reference is asked once: before the training, for all rows, where the training comes by all of them."""

from __future__ import annotations

from typing import Any

import trl
from datasets import Dataset

from trimtab.pipelines.trainers.seams.engines import sharding
from trimtab.rewards._packing import pack


class StoredReferenceDPOTrainer(trl.DPOTrainer):
    """trl.DPOTrainer with `precompute_ref_log_probs` wherever that asks the reference no more often.

    The losses are the same. No reference model is held in memory, and each epoch after the first costs no pass of it.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        settings, rows = kwargs["args"], kwargs["train_dataset"]
        if not settings.sync_ref_model and _meets_every_row(settings, rows):
            settings.precompute_ref_log_probs = True
        if settings.precompute_ref_log_probs and sharding() == "DEEPSPEED":  # ZeRO-3 fails after a single pass of it
            given = settings.precompute_ref_batch_size or settings.per_device_train_batch_size
            settings.precompute_ref_batch_size = min(given, max(1, len(rows) // (2 * settings.world_size)))
        super().__init__(*args, **kwargs)

    def compute_ref_log_probs(self, model, inputs):
        pack(self.accelerator.unwrap_model(model))
        return super().compute_ref_log_probs(model, inputs)


def _meets_every_row(settings: trl.DPOConfig, rows: Any) -> bool:
    if not isinstance(rows, Dataset) or settings.max_steps <= 0:
        return isinstance(rows, Dataset) and settings.num_train_epochs >= 1
    of_a_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * settings.world_size
    return settings.max_steps * of_a_step >= len(rows)
