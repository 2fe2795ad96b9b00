"""Ends a training that stands still or is asked to stop, on all ranks, with words that name the place.

A rank that hangs (a reward that never answers, a lost peer) would hold a whole cluster until somebody looks. Every
rank has a deadline of its own: when nothing has happened for TRIMTAB_STALL seconds (an hour; 0 for never), it says
where it stands, prints the stacks of all its threads, and ends the process, on which the launcher ends the others.

SIGTERM, which a scheduler sends before it takes a machine away, and SIGINT end the training after the step at hand
with a checkpoint. Ranks get it at different moments, so they agree on it after each step, evaluation and checkpoint.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trimtab.pipelines.training import interrupts

STALLED = 86  # the exit code of a rank that stood still


class Watchdog(TrainerCallback):
    """Watches the steps of a trainer. `stopped` is the signal that ended the training, or 0."""

    def __init__(self, rank: int):
        self.rank, self.stopped = rank, 0
        self.seconds = float(os.environ.get("TRIMTAB_STALL", "3600"))
        self.phase, self.step = "beginning", 0
        self._beat = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def _watch(self) -> None:
        while not self._over.is_set():
            if not self._beat.wait(self.seconds) and not self._over.is_set():
                place = f"after step {self.step} ({self.phase})"
                message = f"error: rank {self.rank} has stood still for {self.seconds:g} s {place}; its threads:"
                print(message, file=sys.stderr, flush=True)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(STALLED)
            self._beat.clear()

    def _moved(self, phase: str, state: TrainerState) -> None:
        self.phase, self.step = phase, state.global_step
        self._beat.set()

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
        if self.seconds > 0:
            self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")
            self._thread.start()

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
        if not self._over.is_set() and state.global_step:
            self._stop_if_asked(args, control, save=True)

    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._moved("after a checkpoint", state)
        self._stop_if_asked(args, control, save=False)

    def end(self) -> None:
        """Stops watching, after a training that went well or badly."""
        self._over.set()
        self._beat.set()
        if self._thread is not None:
            self._thread.join()
