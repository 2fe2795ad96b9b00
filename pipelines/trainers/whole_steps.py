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
from transformers import Trainer

from trimtab.pipelines.trainers.row_means import rows_that_count
from trimtab.pipelines.trainers.stored_dpo import StoredReferenceDPOTrainer


class SFTTrainer(trl.SFTTrainer):
    """trl.SFTTrainer, whose loss is a mean over the tokens of a step: rows that are repeats have none to learn."""

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches or "labels" not in batches[-1]:
            return batches, count
        labels = batches[-1]["labels"]
        size = len(labels)
        # rows that are laid end to end in one, without padding, are not told apart
        laid_end_to_end = size == 1 < self.args.per_device_train_batch_size
        if laid_end_to_end or rows_that_count(self, size) == size * self.accelerator.num_processes:
            return batches, count
        repeats = torch.arange(rows_of_this_rank(self, size), size, device=labels.device)
        batches[-1]["labels"] = labels.index_fill(0, repeats, -100)
        return batches, self._get_num_items_in_batch(batches, device)  # which all ranks count together


@dataclass(frozen=True)
class Part:
    """Pairs of a micro-batch from `start` to `end`, and what the mean of their losses is multiplied by."""

    start: int
    end: int
    weight: float


class PairsTrainer(Trainer):
    """A mixin for trl's trainers of pairs, whose loss is a mean over the pairs of a micro-batch.

    Their batches hold the chosen answers of all pairs and behind them the rejected ones.
    """

    _parts: Iterator[list[Part]] = iter(())

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        pairs = [len(batch["input_ids"]) // 2 for batch in batches]
        laid_end_to_end = 0 in pairs
        self._parts = iter(() if laid_end_to_end else parts_of_step(self, pairs))
        return batches, count

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        whole = [Part(0, len(inputs["input_ids"]) // 2, 1.0)]
        parts = next(self._parts, whole) if self.model.training else whole
        if len(parts) == 1 and parts[0].weight == 1.0:
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


def rows_of_this_rank(trainer: Trainer, size: int) -> int:
    """How many rows of this rank's newest batch, of `size`, are no repeats; they stand in front."""
    before = trainer.accelerator.process_index * size
    return min(max(rows_that_count(trainer, size) - before, 0), size)


def parts_of_step(trainer: Trainer, sizes: list[int]) -> list[list[Part]]:
    """The parts of each micro-batch of an optimizer step, for micro-batches of so many rows.

    The last one is cut at the same place on all ranks, whose batches have to be of one size: of the rank whose rows
    are in part repeats, the first part counts and the second does not.
    """
    if not sizes:
        return []
    ranks, size = trainer.accelerator.num_processes, sizes[-1]
    counted = rows_that_count(trainer, size)
    rows = sum(sizes[:-1]) * ranks + counted
    divided = len(sizes) * ranks  # by upstream
    whole = [[Part(0, count, count * divided / rows)] for count in sizes[:-1]]
    cut, kept = counted % size, rows_of_this_rank(trainer, size)
    places = [0, cut, size] if cut else [0, size]
    last = [
        Part(start, end, (end - start) * divided / rows if end <= kept else 0.0) for start, end in pairwise(places)
    ]
    return [*whole, last]


def pairs_of(batch: dict[str, Any], part: Part) -> dict[str, Any]:
    """The pairs of a part: of what has a row for each pair those, of what has two those of both halves."""
    pairs = len(batch["input_ids"]) // 2

    def taken(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.dim() or len(value) not in (pairs, 2 * pairs):
            return value
        halves = value.split(pairs)
        return torch.cat([half[part.start : part.end] for half in halves])

    return {key: taken(value) for key, value in batch.items()}
