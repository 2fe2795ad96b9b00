"""Ends a training that stands still or is asked to stop, on all ranks, with words that name the place.

Every rank has a deadline of its own (see recording/watch.py), on which the launcher ends the others.

SIGTERM, which a scheduler sends before it takes a machine away, and SIGINT end the training after the step at hand
with a checkpoint. Ranks get it at different moments, so they agree on it after each step, evaluation and checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trimtab.pipelines.recording.watch import Watch
from trimtab.pipelines.training import interrupts


class Watchdog(TrainerCallback):
    """Watches the steps of a trainer. `stopped` is the signal that ended the training, or 0."""

    def __init__(self) -> None:
        self.stopped = 0
        self.watch = Watch(_place("beginning", 0))

    def _moved(self, phase: str, state: TrainerState) -> None:
        self.watch.moved(_place(phase, state.global_step))

    def _stop_if_asked(self, args: TrainingArguments, control: TrainerControl, *, save: bool) -> None:
        """Ends the training where any rank was asked to, in all of them."""
        asked = torch.tensor([float(interrupts.asked())], device=args.device)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
        self.stopped = int(asked.item())
        if self.stopped:
            control.should_training_stop = True
            control.should_save = save

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.watch.begin()

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._moved("in the next step", state)

    def on_substep_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._moved("in the next step", state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._moved("between two steps", state)
        self._stop_if_asked(args, control, save=True)

    def on_prediction_step(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._moved("evaluating", state)

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._moved("after an evaluation", state)
        if not self.watch.is_over and state.global_step:
            self._stop_if_asked(args, control, save=True)

    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._moved("after a checkpoint", state)
        self._stop_if_asked(args, control, save=False)

    def end(self) -> None:
        """Stops watching, after a training that went well or badly."""
        self.watch.end()


def _place(phase: str, step: int) -> str:
    return f"after step {step} ({phase})"
