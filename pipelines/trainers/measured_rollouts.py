"""Rollouts whose metrics are those of completions and tokens, not of the batches that they came in.

trl averages the numbers of micro-batches, of which each has as many tokens as it happens to have, and those of an
evaluation's batches, of which the last may be short or hold completions that accelerate repeats.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from trimtab.pipelines.trainers.merged_metrics import EvaluatedCompletions, MergedMetrics
from trimtab.pipelines.trainers.micro_batches import rows_that_count
from trimtab.pipelines.trainers.seeded_rollouts import SeededRollouts


class MeasuredRollouts(SeededRollouts):
    """A mixin: steps log what is weighted by tokens, and evaluations what is of all their completions together."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.merged = {"train": MergedMetrics(), "eval": MergedMetrics()}
        self.evaluated = EvaluatedCompletions()
        super().__init__(*args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        with self.merging(float(self.accelerator.reduce(inputs["completion_mask"].sum()))):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    @contextlib.contextmanager
    def merging(self, tokens: float) -> Iterator[None]:
        """What trl logs inside is of a batch of so many tokens, on all ranks."""
        mode = self.mode()
        before = {name: len(values) for name, values in self._metrics[mode].items()}
        yield
        self.merged[mode].take(self._metrics[mode], before, tokens)

    def mode(self) -> str:
        """`train` or `eval`, as trl calls its lists."""
        return "train" if self.model.training else "eval"

    def end_step(self) -> None:
        """Logs the numbers of an optimizer step's micro-batches as one."""
        for name, value in self.merged["train"].merge().items():
            self._metrics["train"][name].append(value)

    def without_repeats(self, output: dict[str, Any], rewards: Tensor) -> dict[str, Any]:
        """An evaluation's batch, in which completions that accelerate repeats get no tokens and no rewards.

        `rewards` are those of all ranks, (N, K), and are changed in place.
        """
        mask, size = output["completion_mask"], len(output["completion_mask"])
        rows = rows_that_count(self, size, self.num_generations_eval)
        lengths = mask.sum(1).where(mask.any(1), mask.shape[1])  # a truncated one may be masked as a whole
        last = output["completion_ids"].gather(1, (lengths - 1).unsqueeze(1))
        ends = torch.tensor([*self.eos_token_ids, self.processing_class.pad_token_id], device=mask.device)
        facts = self.accelerator.gather(torch.stack([lengths, torch.isin(last.squeeze(1), ends).long()], dim=1))
        self.evaluated.add(facts[:rows, 0], facts[:rows, 1].bool(), rewards[:rows])
        rewards[rows:] = torch.nan
        places = torch.arange(size, device=mask.device) + self.accelerator.process_index * size
        mask = mask * (places < rows).unsqueeze(1)
        return {**output, "completion_mask": mask, "num_items_in_batch": self.accelerator.reduce(mask.sum())}

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        loss, *others = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        self.merged["eval"].add("loss", float(self.accelerator.reduce(loss, reduction="mean")), self.evaluated.tokens)
        return loss, *others

    def log(self, logs, start_time=None):
        if self.mode() == "eval" and "eval_loss" in logs:
            of_tokens = self.merged["eval"].merge()
            logs["eval_loss"] = of_tokens.pop("loss", logs["eval_loss"])
            weights, group = self.reward_weights, self.num_generations_eval
            merged = of_tokens | self.evaluated.merge(self.reward_func_names, weights, group)
            self._metrics["eval"] |= {name: [value] for name, value in merged.items()}
        super().log(logs, start_time)
