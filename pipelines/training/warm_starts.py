"""Whether a step can keep the state of its optimizer, or begin with that of another: what a plan says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.optimizer_blocks import KEY
from trimtab.pipelines.planning.optimizer_blocks import STATE as FROM
from trimtab.pipelines.training.optimizers import engine_of

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

STATE = Path("optimizer", "state.safetensors")  # in a folder of its own: engines read every weight file beside a model


def check(stage: Any, step: Step) -> None:
    """Raises RecipeError where a stage's `optimizer` or `keep_optimizer` cannot be done."""
    kept = (stage.optimizer or {}).get(FROM)
    if not (kept or stage.keep_optimizer):
        return
    key = KEY if kept else "keep_optimizer"
    if stage.model.use_peft:
        raise RecipeError("every step has new adapters, which no earlier optimizer knows", (*step.path, key))
    if engine := engine_of(step):
        raise RecipeError(
            f"{engine} splits the optimizer's state over the ranks: a warm one needs one process or DDP",
            (*step.path, key),
        )
    if kept and not step.pending(kept) and not file_of(kept).is_file():
        raise RecipeError(f"{kept} has no optimizer state: train it with `keep_optimizer: true`", (*step.path, key))


def file_of(model: str) -> Path:
    """Where the state lies that was kept beside a model."""
    return Path(model).expanduser() / STATE
