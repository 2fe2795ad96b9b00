"""Marks the checkpoints that a trainer has finished, and finds the newest of them.

The Trainer writes straight into `checkpoint-N/`, without a temporary name, and `get_last_checkpoint` takes the highest
N whether it was finished or not. So a callback marks a checkpoint after all ranks have written it, and only a marked
one whose files still have their sizes is resumed from.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerState, TrainingArguments

from trimtab.pipelines.planning.files import write_atomically

MARK = "complete.json"
logger = logging.getLogger(__name__)


class MarkComplete(TrainerCallback):
    """Writes the mark, which holds the sizes of all files, once they are on the disk."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        distributed = PartialState()
        distributed.wait_for_everyone()  # every rank saves its own random state
        if args.should_save:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            sizes = {}
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                sizes[str(path.relative_to(folder))] = path.stat().st_size
            write_atomically(folder / MARK, json.dumps(sizes, indent=1))
        distributed.wait_for_everyone()


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint in a trainer's output folder, or None. Says which ones it passed over."""
    checkpoints = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for path in sorted(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        if _complete(path):
            return path
        logger.warning("%s is incomplete (interrupted while saving): passed over", path)
    return None


def _complete(path: Path) -> bool:
    try:
        sizes = json.loads((path / MARK).read_text())
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False
