"""What a trainer has counted since its last log, and since it began: a part of each checkpoint.

transformers and trl begin these counts anew where a training goes on: the next log would be of the steps since then
only, the mean loss at the end too, and the tokens would be counted from 0. The record of a training that was killed is
that of an undisturbed one, so every rank keeps its counts beside its random state.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState, TrainingArguments

# the attributes of transformers' and trl's trainers that are numbers
NUMBERS = ("_total_loss_scalar", "_globalstep_last_logged", "_total_train_tokens")


class Counting(TrainerCallback):
    """Keeps the counts in every checkpoint, and takes up those of the one that a training goes on from."""

    def __init__(self, trainer: Any, checkpoint: Path | None):
        self.trainer, self.checkpoint = trainer, checkpoint

    def on_save(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._file(checkpoint).write_text(json.dumps(counts(self.trainer), default=float))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self.checkpoint is None:
            return
        kept = len(list(self.checkpoint.glob("counts-*.json")))
        if kept == self.trainer.accelerator.num_processes:  # those of other ranks are not theirs
            self.trainer.model.train()  # by which trl tells the counts of training, also where no step is left
            take_up(self.trainer, json.loads(self._file(self.checkpoint).read_text()))

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if logs is not None and "train_loss" in logs:
            logs["train_loss"] = mean_loss(self.trainer)

    def _file(self, checkpoint: Path) -> Path:
        return checkpoint / f"counts-{self.trainer.accelerator.process_index}.json"


def counts(trainer: Any) -> dict[str, Any]:
    """This rank's counts, as JSON."""
    return {
        "numbers": {name: getattr(trainer, name) for name in NUMBERS if hasattr(trainer, name)},
        "loss": trainer._tr_loss.item(),
        "metrics": getattr(trainer, "_metrics", {"train": {}})["train"],
        "tallies": {name: sums.tolist() for name, sums in _tallies(trainer).items()},
    }


def take_up(trainer: Any, kept: dict[str, Any]) -> None:
    """Gives a trainer that has just begun the counts of a checkpoint."""
    for name, number in kept["numbers"].items():
        setattr(trainer, name, number)
    trainer._tr_loss.fill_(kept["loss"])
    for name, values in kept["metrics"].items():
        trainer._metrics["train"][name] = values
    for name, sums in kept["tallies"].items():
        _tallies(trainer)[name] = torch.tensor(sums, device=trainer.accelerator.device)


def mean_loss(trainer: Any) -> float:
    """The mean loss of all steps of a training that has ended, also of those before it went on."""
    return trainer._total_loss_scalar / max(trainer.state.global_step, 1)


def end(trainer: Any) -> dict[str, float]:
    """Ends the counts of a training that has nothing left to do, logs what the Trainer would have, and returns it."""
    trainer._total_loss_scalar += trainer._tr_loss.item()
    summary = {"total_flos": trainer.state.total_flos, "train_loss": mean_loss(trainer)}
    trainer.log(summary)
    return summary


def _tallies(trainer: Any) -> dict[str, torch.Tensor]:
    """Sums and counts of the metrics of trainers of ours."""
    return getattr(trainer, "_tallies", {"train": {}})["train"]
