"""The gradient norms that a finished training has kept, and whether a schedule can be made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.algorithms import schedules
from trimtab.pipelines.planning import field_types
from trimtab.pipelines.planning.errors import Mistakes, RecipeError

if TYPE_CHECKING:
    import numpy as np

    from trimtab.pipelines.planning.recipe import Step

FILE = "gradient_norms.json"  # beside a model, and in each checkpoint
OF_UPSTREAM = ("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio")


@dataclass(frozen=True)
class Earlier:
    """What a training has kept of its steps, at `places`, the share of it that was done after each."""

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
    """Raises RecipeError where it can be told that a training which is still to run will have too few steps."""
    steps = earlier.options.get("train", {}).get("max_steps", -1)
    if 0 < steps < fewest:
        raise RecipeError(_too_few(earlier, steps, fewest), place)


def _too_few(earlier: Step, count: int, fewest: int) -> str:
    return (
        f"{earlier.name} has {count} gradient norms, one for each step, and a schedule is made of {fewest} or more: "
        "refine a longer training, or lower `schedule.fewest`"
    )


def read(earlier: Step, fewest: int, place: tuple[str, ...]) -> Earlier:
    """What a finished training has kept. Raises RecipeError where no schedule can be made of it."""
    import numpy as np

    file = earlier.output / FILE
    if not file.is_file():
        cure = f"move {earlier.dir} away, and it is trained anew"
        raise RecipeError(f"{earlier.name} is of an older version, which kept no {FILE}: {cure}", place)
    kept = json.loads(file.read_text())
    norms = np.array(kept["norms"], dtype=float)  # null is nan
    numbers = np.isfinite(norms)
    if numbers.sum() < fewest:
        raise RecipeError(_too_few(earlier, int(numbers.sum()), fewest), place)
    if not np.median(norms[numbers]) > 0:
        raise RecipeError(f"half of the gradients of {earlier.name} were 0: no schedule can follow them", place)
    return Earlier(schedules.ends(len(norms))[numbers], norms[numbers], np.array(kept["rates"])[numbers])
