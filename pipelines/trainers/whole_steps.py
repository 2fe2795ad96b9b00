"""TRL's trainers of rows and of pairs, whose last step of an epoch learns from its rows, and from each of them once.

Where a batch does not fill all ranks, accelerate repeats rows from the beginning of the data; where the last
micro-batch of an optimizer step is smaller than the others, upstream averages their means. Both would make the weights
depend on how a batch is made up. All other steps are upstream's, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import trl
from torch import Tensor

from trimtab.pipelines.trainers.micro_batches import MicroBatchTrainer, StepRows
from trimtab.pipelines.trainers.stored_dpo import StoredReferenceDPOTrainer


class SFTTrainer(MicroBatchTrainer, trl.SFTTrainer):
    """trl.SFTTrainer, whose loss is a mean over the tokens of a step: rows that are repeats have none to learn."""

    def rows_of(self, batch):
        size = len(batch.get("labels", ()))
        laid_end_to_end = size == 1 < self.args.per_device_train_batch_size and self.tokens_per_batch is None
        return 0 if laid_end_to_end else size

    def leave_out(self, batch, start):
        labels = batch["labels"]
        batch["labels"] = labels.index_fill(0, torch.arange(start, len(labels), device=labels.device), -100)

    def weight_of(self, batch):
        return float(self.accelerator.reduce((batch["labels"][:, 1:] != -100).sum().float()))


@dataclass(frozen=True)
class Part:
    """Pairs of a micro-batch from `start` to `end`, and what the mean of their losses is multiplied by."""

    start: int
    end: int
    weight: float


class PairsTrainer(MicroBatchTrainer):
    """A mixin for trl's trainers of pairs, whose loss is a mean over the pairs of a micro-batch.

    Their batches hold the chosen answers of all pairs and behind them the rejected ones.
    """

    _parts: Iterator[list[Part]] = iter(())

    def rows_of(self, batch):
        return len(batch["input_ids"]) // 2

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        self._parts = iter(())
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def begin_step(self, step: StepRows) -> None:
        self._parts = iter(parts_of_step(step, self.accelerator.num_processes))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        parts: list[Part] = next(self._parts, []) if self.model.training else []
        if not parts or [part.weight for part in parts] == [1.0]:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        losses = []
        for part in parts:
            loss = super().compute_loss(model, pairs_of(inputs, part), False, num_items_in_batch)
            losses.append(loss * part.weight)
        return sum(losses[1:], losses[0])


class DPOTrainer(PairsTrainer, StoredReferenceDPOTrainer):
    """trl.DPOTrainer with whole steps, whose reference is asked once."""


class RewardTrainer(PairsTrainer, trl.RewardTrainer):
    """trl.RewardTrainer with whole steps."""


def parts_of_step(step: StepRows, ranks: int) -> list[list[Part]]:
    """The parts of each micro-batch of an optimizer step, weighted so that the step's loss is the mean over its pairs.

    The last one is cut at the same place on all ranks, whose batches have to be of one size: of the rank whose rows
    are in part repeats, the first part counts and the second does not.
    """
    divided = len(step.sizes) * ranks  # by upstream
    places = [[0, size] for size in step.sizes]
    if step.cut:
        places[-1].insert(1, step.cut)
    return [
        [
            Part(start, end, (end - start) * divided / step.total if end <= kept else 0.0)
            for start, end in pairwise(cuts)
        ]
        for cuts, kept in zip(places, step.counted, strict=True)
    ]


def pairs_of(batch: dict[str, Any], part: Part) -> dict[str, Any]:
    """The pairs of a part: of what has a row for each pair those, of what has two those of both halves."""
    pairs = len(batch["input_ids"]) // 2

    def taken(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.dim() or len(value) not in (pairs, 2 * pairs):
            return value
        halves = value.split(pairs)
        return torch.cat([half[part.start : part.end] for half in halves])

    return {key: taken(value) for key, value in batch.items()}
