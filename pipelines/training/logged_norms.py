"""The gradient norms that a finished training has logged, and whether a schedule can be made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning import field_types
from trimtab.pipelines.planning.errors import Mistakes, RecipeError
from trimtab.pipelines.recording import tracking

if TYPE_CHECKING:
    import numpy as np

    from trimtab.pipelines.planning.recipe import Step

OF_UPSTREAM = ("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio")


@dataclass(frozen=True)
class Logged:
    """What an earlier training has logged of its steps, at `places`, the share of it that was done after each."""

    places: np.ndarray
    norms: np.ndarray
    rates: np.ndarray


def check(stage: Any, step: Step) -> None:
    """Raises RecipeError where a stage's `schedule` cannot be made, or is not the only one."""
    mistakes, place = Mistakes(), (*step.path, "schedule", "refine")
    kind: Any = type(stage)
    defaults = field_types.training_defaults(kind)
    for key in OF_UPSTREAM:
        if getattr(stage.train, key, None) != defaults.get(key):
            message = "`schedule` says the learning rate of every step: leave it out"
            mistakes.add(RecipeError(message, (*step.path, "train", key)))
    earlier = step.maker(stage.schedule.refine)
    with mistakes.collected():
        if earlier is None or earlier.batch is None:
            raise RecipeError(f"{stage.schedule.refine} is no training above: write $that_stage", place)
        if earlier.done:
            read(earlier, stage.schedule.fewest, place)
        else:
            _check_ahead(earlier, stage.schedule.fewest, place)
    mistakes.raise_any()


def _check_ahead(earlier: Step, fewest: int, place: tuple[str, ...]) -> None:
    """Raises RecipeError where it can be told that a training which is still to run will log too few norms."""
    train = earlier.options.get("train", {})
    steps, every = train.get("max_steps", -1), train.get("logging_steps")
    if isinstance(every, int) and 0 < steps < fewest * every:
        raise RecipeError(_too_few(earlier, steps // every, fewest), place)


def _too_few(earlier: Step, count: int, fewest: int) -> str:
    return (
        f"{earlier.name} logs {count} gradient norms, and a schedule is made of {fewest} or more: set "
        f"`stages.{earlier.stage}.train.logging_steps: 1` before it is trained"
    )


def read(earlier: Step, fewest: int, place: tuple[str, ...]) -> Logged:
    """What a finished training has logged. Raises RecipeError where no schedule can be made of it."""
    import numpy as np

    rows = [row for row in tracking.read(earlier.dir / "metrics.jsonl") if "step" in row]
    of_steps = {
        row["step"]: (row["train/grad_norm"], row.get("train/learning_rate", np.nan))
        for row in rows
        if np.isfinite(row.get("train/grad_norm", np.nan))
    }
    if len(of_steps) < fewest:
        raise RecipeError(_too_few(earlier, len(of_steps), fewest), place)
    steps = sorted(of_steps)
    norms, rates = np.array([of_steps[step] for step in steps]).T
    if not np.median(norms) > 0:
        raise RecipeError(f"half of the gradients of {earlier.name} were 0: no schedule can follow them", place)
    return Logged(np.array(steps) / max(row["step"] for row in rows), norms, rates)
