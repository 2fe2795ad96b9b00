"""The gradient's norm in every step, kept beside a trained model, whatever is logged.

A later training may be scheduled by them, and how often the earlier one logs is no part of what it is. So they are
a part of its artifact, as `gradient_norms.json`, and of each checkpoint.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments

from trimtab.pipelines.trainers.seams.trl import watch_gradient_norm
from trimtab.pipelines.training.earlier_norms import FILE


class GradientNorms(TrainerCallback):
    """Keeps the norm before clipping, null where it is no number, and the learning rate of each step."""

    def __init__(self, trainer: Any, checkpoint: Path | None):
        self.checkpoint = checkpoint
        self.newest: Any = None
        self.norms: list[Any] = []  # numbers, or tensors until they are written: a look would wait for the GPU
        self.rates: list[float] = []
        watch_gradient_norm(trainer, self._take)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self.checkpoint is None:
            return
        file = self.checkpoint / FILE
        of_no_step: dict[str, list[Any]] = {
            "norms": [None] * state.global_step,
            "rates": [math.nan] * state.global_step,
        }
        kept = json.loads(file.read_text()) if file.is_file() else of_no_step  # a checkpoint of an older version
        self.norms, self.rates = kept["norms"], kept["rates"]

    def on_pre_optimizer_step(
        self, args: Any, state: TrainerState, control: Any, lr_scheduler: Any = None, **kwargs: Any
    ) -> None:
        self.norms.append(self.newest)
        self.rates.append(lr_scheduler.get_last_lr()[0])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._read()
        if state.is_world_process_zero:
            self.write(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._read()

    def write(self, folder: Path) -> None:
        """Writes all of them into a folder."""
        (folder / FILE).write_text(json.dumps({"norms": self.norms, "rates": self.rates}) + "\n")

    def _take(self, norm: Any) -> None:
        self.newest = norm

    def _read(self) -> None:
        """Makes numbers of tensors, on all ranks at once, as one that is sharded takes all of them to read."""
        self.norms = [_number(norm) for norm in self.norms]


def _number(norm: Any) -> float | None:
    """A norm as a number, and None where it is none."""
    return float(norm) if norm is not None and math.isfinite(norm) else None
