"""What a checkpoint was made under, and whether a training under others goes on from it.

Engines lay a model's and an optimizer's state out in their own ways, and where they split it, for so many ranks: a
training under others is refused. Under DDP the state is whole on every rank and the batch of a step the same on any
number of them: it goes on. That, other versions and another device round differently, which is allowed, and told.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording.artifacts import versions
from trimtab.pipelines.trainers.seams.engines import sharding

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

logger = logging.getLogger(__name__)


def here() -> dict[str, Any]:
    """The circumstances of this process group."""
    state = PartialState()
    return {
        "processes": state.num_processes,
        "engine": sharding() or "DDP",
        "device": state.device.type,
        "versions": versions(),
    }


def require_same(saved: dict[str, Any], checkpoint: Path, step: Step) -> None:
    """Raises RecipeError where a training here would not be that of the checkpoint; warns of what rounds otherwise."""
    today = here()
    cure = f"Launch it as before, or move {checkpoint.parent} away to train anew"
    if saved["processes"] != today["processes"] and saved["engine"] == today["engine"] != "DDP":
        raise RecipeError(
            f"{checkpoint} was saved by {saved['processes']} processes and this launch has {today['processes']}, "
            f"under {saved['engine']}, which splits the state for so many. {cure}",
            step.path,
        )
    if saved["engine"] != today["engine"]:
        raise RecipeError(
            f"{checkpoint} was saved under {saved['engine']} and this launch is under {today['engine']}, which does "
            f"not read the other's state of the optimizer. {cure}",
            step.path,
        )
    before, now = ({**facts, **facts["versions"], "versions": None} for facts in (saved, today))
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed and PartialState().is_main_process:
        told = ", ".join(f"{name} {before.get(name, 'none')} -> {now.get(name, 'none')}" for name in changed)
        message = "%s was saved under other circumstances (%s): the training goes on, and its last digits may differ"
        logger.warning(message, checkpoint, told)
