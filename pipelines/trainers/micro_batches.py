"""Which rows of an optimizer step count, and micro-batches that hold so many tokens in the place of so many rows.

The loss of a step is a mean over its rows (of sft, over its tokens), so it is the same however the step is cut. With
`tokens_per_batch` every rank sorts its rows of a step by length, and all of them cut theirs at the same places, where
one more row would be beyond that on one of them: trl gathers numbers of the rows, and sharded models compute together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from typing import Any

import torch
from transformers import Trainer

from trimtab.pipelines.trainers.merged_metrics import MergedMetrics
from trimtab.pipelines.trainers.seams.engines import gradients_kept

PARTS = "micro_batches"  # the key of a step that is cut by tokens: its batches, in a list


@dataclass(frozen=True)
class Uncollated:
    """A rank's rows of a step, as the dataset has them: they are collated when it is known how they are cut."""

    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class StepRows:
    """How many rows each micro-batch of a rank has, how many of these count, the first ones; and those of all ranks.

    `cut` is where the last micro-batch of every rank is cut, of which one rank has to leave out the rest; 0 for none.
    """

    sizes: list[int]
    counted: list[int]
    total: int
    cut: int = 0


class MicroBatchTrainer(Trainer):
    """A mixin for trainers whose loss is a mean over a step's rows, whatever micro-batches and ranks they come in.

    Where a batch does not fill all ranks, accelerate repeats rows from the beginning of the data, which count for
    nothing here. A subclass says how many rows a batch has, and how they are left out.
    """

    tokens_per_batch: int | None = None
    data_collator: Any

    def rows_of(self, batch: Any) -> int:
        """How many rows a batch has; 0 where that cannot be told, as of rows that are laid end to end."""
        raise NotImplementedError

    def leave_out(self, batch: Any, start: int) -> None:
        """Makes the rows of a batch from `start` on count for nothing."""

    def begin_step(self, step: StepRows) -> None:
        """Called before the micro-batches of a step are learned from."""

    def get_train_dataloader(self):
        if self.tokens_per_batch is None:
            return super().get_train_dataloader()
        collator, self.data_collator = self.data_collator, Uncollated
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches = list(islice(epoch_iterator, num_batches))
        step: StepRows | None
        if batches and self.tokens_per_batch is not None:
            batches, step = self._cut_by_tokens(batches[0].rows)
        else:
            step = self._as_it_comes([self.rows_of(batch) for batch in batches])
        if step is not None:
            for batch, size, counted in zip(batches, step.sizes, step.counted, strict=True):
                if counted < size:
                    self.leave_out(batch, counted)
            self.begin_step(step)
        batches, count = super().get_batch_samples(iter(batches), len(batches), device)
        return ([{PARTS: batches}] if batches and self.tokens_per_batch is not None else batches), count

    def weight_of(self, batch: Any) -> float:
        """What trl's metrics of a batch count for in those of a step, whose other batches are of other sizes."""
        return float(self.rows_of(batch))

    def training_step(self, model, inputs, num_items_in_batch=None):
        batches = parts(inputs)
        if PARTS not in inputs:
            return super().training_step(model, inputs, num_items_in_batch)
        self.current_gradient_accumulation_steps = len(batches)
        logged, merged = getattr(self, "_metrics", {"train": {}})["train"], MergedMetrics()
        losses = []
        for batch in batches:
            before = {name: len(values) for name, values in logged.items()}
            before["num_tokens"] = 1  # of the training so far: not merged
            with contextlib.nullcontext() if batch is batches[-1] else gradients_kept(self, model):
                losses.append(super().training_step(model, batch, num_items_in_batch))
            merged.take(logged, before, self.weight_of(batch))
        for name, value in merged.merge().items():
            logged[name].append(value)
        return sum(losses)

    def floating_point_ops(self, inputs):
        return sum(map(super().floating_point_ops, parts(inputs)))

    def _as_it_comes(self, sizes: list[int]) -> StepRows | None:
        """The rows of micro-batches of these sizes, of which the last has repeats at an epoch's end."""
        if not sizes or 0 in sizes:
            return None
        size = sizes[-1]
        counted = rows_that_count(self, size)
        total = sum(sizes[:-1]) * self.accelerator.num_processes + counted
        return StepRows(sizes, [*sizes[:-1], rows_of_this_rank(self, size)], total, counted % size)

    def _cut_by_tokens(self, rows: list[dict[str, Any]]) -> tuple[list[Any], StepRows]:
        assert self.tokens_per_batch is not None
        kept, total = rows_of_this_rank(self, len(rows)), rows_that_count(self, len(rows))
        lengths = list(map(tokens, rows))
        order = sorted(range(len(rows)), key=lambda place: (place >= kept, -lengths[place]))
        of_rank = torch.tensor([lengths[place] for place in order], device=self.accelerator.device)
        of_ranks = self.accelerator.gather(of_rank).view(-1, len(rows)).tolist()
        sizes = group_sizes(of_ranks, self.tokens_per_batch, total % len(rows))
        ends = list(accumulate(sizes, initial=0))
        batches = [self.data_collator([rows[place] for place in order[start:end]]) for start, end in pairwise(ends)]
        counted = [size if end <= kept else 0 for size, end in zip(sizes, ends[1:], strict=True)]
        return batches, StepRows(sizes, counted, total)


def parts(inputs: Any) -> list[Any]:
    """The micro-batches of a step that is cut by tokens; of any other batch, itself."""
    return inputs[PARTS] if isinstance(inputs, dict) and PARTS in inputs else [inputs]


def rows_that_count(trainer: Trainer, size: int, repeats: int = 1) -> int:
    """How many rows of all ranks' batches, of `size` each, are no repeats; those stand in the ranks' order, in front.

    The data loader gives every row of its dataset `repeats` times. accelerate's count of the rest is not used: it
    knows neither of these, nor of the rest in an epoch that is gone on with.
    """
    state, ranks = trainer.accelerator.gradient_state, trainer.accelerator.num_processes
    if ranks == 1 or not state.end_of_dataloader or trainer.args.dataloader_drop_last:
        return size * ranks
    return len(state.active_dataloader.dataset) * repeats % (size * ranks) or size * ranks


def rows_of_this_rank(trainer: Trainer, size: int) -> int:
    """How many rows of this rank's newest batch, of `size`, are no repeats; they stand in front."""
    before = trainer.accelerator.process_index * size
    return min(max(rows_that_count(trainer, size) - before, 0), size)


def tokens(row: dict[str, Any]) -> int:
    """The tokens that a packed model computes of a row: of its lists of ids, a common beginning once.

    Raises ValueError for a row without any.
    """
    texts: list[list[int]] = []
    for name, value in row.items():
        if name.endswith("_ids") and value:
            texts += value if isinstance(value[0], list) else [value]
    if not texts:
        raise ValueError(f"`tokens_per_batch` counts columns of token ids, and a row has none: {', '.join(row)}")
    texts.sort()
    return sum(map(len, texts)) - sum(_common(*pair) for pair in pairwise(texts))


def group_sizes(lengths: Sequence[Sequence[int]], most: int, cut: int) -> list[int]:
    """The rows of each group, for rows with `lengths` tokens of every rank, as many on each, in the order of groups.

    A group has no more than `most` tokens on any rank, or one row, and none goes over the place `cut`.
    """
    sizes: list[int] = []
    filled = [0] * len(lengths)
    for place, of_ranks in enumerate(zip(*lengths, strict=True)):
        filled = [before + length for before, length in zip(filled, of_ranks, strict=True)]
        if not sizes or max(filled) > most or place == cut:
            sizes.append(0)
            filled = list(of_ranks)
        sizes[-1] += 1
    return sizes


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens at the beginning of two texts are the same."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))
