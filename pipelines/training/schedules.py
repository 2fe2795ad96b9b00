"""The learning rate of a training by the gradient norms of an earlier one, made and logged beside the old."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerState

from trimtab.pipelines.algorithms import schedules
from trimtab.pipelines.algorithms.schedules import ScheduleSettings
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.training import earlier_norms

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


def install(trainer: Any, settings: ScheduleSettings, step: Step) -> None:
    """Gives a trainer the refined learning rate. Raises RecipeError where none can be made."""
    earlier = step.maker(settings.refine)
    assert earlier is not None  # which the check has seen
    before = earlier_norms.read(earlier, settings.fewest, (*step.path, "schedule", "refine"))

    def create_scheduler(num_training_steps: int, optimizer: Optimizer | None = None) -> LambdaLR:
        table = schedules.factors(before.places, before.norms, num_training_steps, settings.power)
        last = num_training_steps - 1
        trainer.lr_scheduler = LambdaLR(optimizer or trainer.optimizer, lambda t: float(table[min(t, last)]))
        return trainer.lr_scheduler

    trainer.create_scheduler = create_scheduler
    trainer.add_callback(BesideTheOld(before))


class BesideTheOld(TrainerCallback):
    """Logs the learning rate beside that which the earlier training had after the same share of its steps."""

    def __init__(self, before: earlier_norms.Earlier):
        self.before = before

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if logs and "learning_rate" in logs and state.is_world_process_zero:
            then = np.interp(state.global_step / state.max_steps, self.before.places, self.before.rates)
            rates = {"schedule/refined": logs["learning_rate"], "schedule/before": float(then)}
            tracking.log(rates, state.global_step)
