"""Whether the disk has room for a checkpoint, before anything of it is written."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trimtab.pipelines.training import checkpoints


class Room(TrainerCallback):
    """Refuses to begin a checkpoint that cannot become whole, so that those before it stay and the disk is not full.

    It needs what the one before it has taken, and the first one no less than the weights.
    """

    def __init__(self, trainer: Any):
        self.weights = sum(value.numel() * value.element_size() for value in trainer.model.parameters())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not (control.should_save and args.should_save):
            return
        folder = Path(args.output_dir)
        needed = checkpoints.newest_bytes(folder) or self.weights
        there = next(above for above in (folder, *folder.parents) if above.exists())
        if shutil.disk_usage(there).free < needed:
            path = folder / f"checkpoint-{state.global_step}"
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: it takes {needed / 1e6:,.1f} MB", str(path))
