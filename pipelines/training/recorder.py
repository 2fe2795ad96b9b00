"""Records what a trainer logs, and ends a training whose loss or gradient is no number."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments

from trimtab.pipelines.recording import tracking
from trimtab.pipelines.trainers.seams.trl import rewrite_logs


class Recorder(TrainerCallback):
    """Records every metric as it is logged, but for the summary of a training, which waits until that is whole."""

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: Any,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = dict(logs or {})
        for name in ("loss",) if args.fp16 else ("loss", "grad_norm"):  # fp16 leaves out steps with such a gradient
            if name in logs and not math.isfinite(float(logs[name])):
                raise FloatingPointError(
                    f"{name} is not a number at step {state.global_step}: the weights are lost. Lower "
                    f"train.learning_rate ({args.learning_rate}); checkpoints in {args.output_dir} are from before"
                )
        if "train_loss" in logs:  # also of a training that was stopped, and will go on
            self.summary = logs
        elif state.is_world_process_zero:
            tracking.log(rewrite_logs(logs), state.global_step)

    def close(self, state: TrainerState) -> None:
        """Records the summary of a training whose last step is done."""
        if state.is_world_process_zero:
            tracking.log(rewrite_logs(self.summary), state.global_step)
