"""Where a training goes on: the checkpoint on which all ranks agree, and the record of metrics as it was then."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from trimtab.pipelines.recording import tracking
from trimtab.pipelines.training import checkpoints, circumstances

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


def find(folder: Path, step: Step) -> Path | None:
    """The newest whole checkpoint, or None; the record of metrics goes on from it. Called by every rank.

    One rank reads the files, since each of them is hashed. Raises RecipeError where the checkpoint was saved under
    circumstances that this launch cannot go on from.
    """
    chosen = [checkpoints.newest(folder) if PartialState().is_main_process else None]
    (checkpoint,) = broadcast_object_list(chosen)
    if checkpoint is None:
        tracking.resume(None)
        return None
    mark = checkpoints.read_mark(checkpoint)
    circumstances.require_same(mark["circumstances"], checkpoint, step)
    tracking.resume(mark["logged"])
    return checkpoint
