"""A trainer whose loss and metrics are means over rows, whatever micro-batches and ranks the rows come in.

transformers.Trainer averages the means of micro-batches, whose last may be smaller, multiplies by the accumulation
steps where a model's loss does not know them, and counts the rows that accelerate repeats so that all ranks have
batches of one size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trimtab.pipelines.trainers.micro_batches import MicroBatchTrainer, StepRows, rows_of_this_rank


class RowMeansTrainer(MicroBatchTrainer):
    """The loss of an optimizer step is the mean over its rows, and a metric that over the rows between two logs.

    A subclass says in `row_losses` what each row loses, and hands its metrics to `tally`. Its collator gives every
    batch `counts` (rows,), all True: here the rows that accelerate repeats at the end of an epoch become False.
    """

    loss_is_scaled_for_ga = True  # `compute_loss` divides by the rows of the whole optimizer step

    def __init__(self, *args: Any, **kwargs: Any):
        self._tallies: dict[str, dict[str, Tensor]] = {"train": {}, "eval": {}}
        super().__init__(*args, **kwargs)

    def row_losses(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses of a batch's rows (rows,), and outputs by name for who asks for them."""
        raise NotImplementedError

    def tally(self, name: str, values: Tensor, where: Tensor) -> None:
        """Adds to the metric `name`, which is the mean of all values at which `where`, of their shape, is True."""
        sums = torch.stack([values.where(where, 0.0).sum().float(), where.sum().float()]).detach()
        tallies = self._tallies[self._mode()]
        tallies[name] = tallies[name] + sums if name in tallies else sums

    def rows_of(self, batch):
        return len(batch["counts"])

    def leave_out(self, batch, start):
        batch["counts"] = batch["counts"] & (torch.arange(len(batch["counts"]), device=batch["counts"].device) < start)

    def begin_step(self, step: StepRows) -> None:
        self._rows_of_step = step.total

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, self._rows_of_step if batches else count

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        self.leave_out(inputs, rows_of_this_rank(self, self.rows_of(inputs)))
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        losses, outputs = self.row_losses(model, inputs)
        total, counts = losses.where(inputs["counts"], 0.0).sum(), inputs["counts"]
        if self._mode() == "eval" or num_items_in_batch is None:
            loss = total / counts.sum().clamp(min=1)
        else:  # the gradient is averaged over ranks
            loss = total * self.accelerator.num_processes / num_items_in_batch
        return (loss, {"loss": loss, **outputs}) if return_outputs else loss

    def log(self, logs, start_time=None):
        tallies = self._tallies[self._mode()]
        if tallies:
            sums = self.accelerator.reduce(torch.stack(list(tallies.values())))
            prefix = "eval_" if self._mode() == "eval" else ""
            for name, (total, count) in zip(tallies, sums.tolist(), strict=True):
                logs[prefix + name] = total / max(count, 1.0)
            tallies.clear()
        super().log(logs, start_time)

    def _mode(self) -> str:
        return "train" if self.model.training else "eval"
