"""Training on lists of answers, with stored log-probabilities of the reference instead of a reference model.

All K answers of all rows of a batch go through the model in one forward pass, as the token ids that were sampled:
nothing is tokenised again. `per_device_train_batch_size` counts rows, so it is K times as many sequences.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from trimtab.pipelines.algorithms.losses import columns, ordered_pairs
from trimtab.pipelines.trainers.seams.trl import token_logps


class ListTrainer(SFTTrainer):
    """Takes rows with `prompt_ids`, `completion_ids` and the columns that the loss asks for.

    `completion_ids` are K lists, best first; rows may have different K. `loss` is one of pipelines.algorithms.losses
    with its constants bound: a function of `logps` (B, K) and, by name, of `lengths`, `present`, `ref_logps`,
    `win_probs` or `scores`, that returns (B,). Rows with an answer beyond `args.max_length` are left out; raises
    ValueError when none is left.

    Logs `rewards/accuracies`, the share of ordered pairs whose implicit rewards stand in that order; `margins`, the
    implicit reward of the best answer minus that of the worst; `logps/best` and `logps/worst`, in nats per answer.
    The implicit reward is log pi / pi_ref in nats (that is, without beta); where the loss has no reference, it is the
    mean of log pi over the answer's tokens.
    """

    loss_is_scaled_for_ga = False  # it is a mean over rows, which the Trainer divides by the accumulation steps

    def __init__(self, *, loss: Callable[..., Tensor], args: SFTConfig, **kwargs: Any):
        self.list_loss, self.asked = loss, set(inspect.signature(loss).parameters)
        self.tallies: dict[str, Tensor] = {}
        args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
        args.remove_unused_columns = False  # the model's forward knows none of ours
        numbers = columns(loss)
        for name in ("train_dataset", "eval_dataset"):
            if kwargs.get(name) is not None:
                needed = kwargs[name].select_columns(["prompt_ids", "completion_ids", *numbers.values()])
                kwargs[name] = _fitting(needed, args.max_length)
        super().__init__(args=args, data_collator=ListCollator(numbers), **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        learned = inputs["learned"]
        present = learned.any(-1)
        # only the answers that are there: (answers, tokens)
        per_token, router_loss = token_logps(
            model, inputs["input_ids"][present], inputs["attention_mask"][present], learned[present]
        )
        logps = per_token.new_zeros(present.shape)
        logps[present] = per_token.sum(-1)
        available = {**inputs, "lengths": learned.sum(-1), "present": present}
        loss = self.list_loss(logps, **{name: available[name] for name in self.asked & available.keys()}).mean()
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * router_loss
        self._tally(logps.detach(), available)
        return (loss, {"logps": logps}) if return_outputs else loss

    def _tally(self, logps: Tensor, batch: dict[str, Tensor]) -> None:
        """Adds the batch to this rank's sums; `log` adds up those of all ranks."""
        present = batch["present"]
        rewards = logps - batch["ref_logps"] if "ref_logps" in batch else logps / batch["lengths"].clamp(min=1)
        pairs = ordered_pairs(present)
        right = (rewards[:, :, None] > rewards[:, None, :]) & pairs
        last = present.sum(-1, keepdim=True) - 1
        worst, margins = logps.gather(1, last), rewards[:, :1] - rewards.gather(1, last)
        sums = [right.sum(), pairs.sum(), logps[:, 0].sum(), worst.sum(), margins.sum(), present[:, 0].sum()]
        mode = "train" if self.model.training else "eval"
        tally = torch.stack([number.float() for number in sums])
        self.tallies[mode] = self.tallies[mode] + tally if mode in self.tallies else tally

    def log(self, logs, start_time=None):
        mode = "train" if self.model.training else "eval"
        if mode in self.tallies:
            right, pairs, best, worst, margins, rows = self.accelerator.reduce(self.tallies.pop(mode)).tolist()
            prefix = "eval_" if mode == "eval" else ""
            logs |= {
                f"{prefix}rewards/accuracies": right / max(pairs, 1),
                f"{prefix}margins": margins / rows,
                f"{prefix}logps/best": best / rows,
                f"{prefix}logps/worst": worst / rows,
            }
        super().log(logs, start_time)


@dataclass
class ListCollator:
    """Rows become tensors, padded to the batch's largest K and, on the right, to its largest T.

    They are `input_ids`, `attention_mask` and `learned` (B, K, T), which is True at the answers' tokens, and every one
    of `columns` (name -> column) as (B, K) float32.
    """

    columns: dict[str, str]

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        answers = max(len(row["completion_ids"]) for row in rows)
        tokens = max(_length(row) for row in rows)
        ids = torch.zeros(len(rows), answers, tokens, dtype=torch.long)
        seen, learned = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        values = {name: torch.zeros(len(rows), answers) for name in self.columns}
        for i, row in enumerate(rows):
            start = len(row["prompt_ids"])
            for k, completion in enumerate(row["completion_ids"]):
                end = start + len(completion)
                ids[i, k, :end] = torch.tensor(row["prompt_ids"] + completion)
                seen[i, k, :end] = 1
                learned[i, k, start:end] = True
            for name, column in self.columns.items():
                values[name][i, : len(row[column])] = torch.tensor(row[column])
        return {"input_ids": ids, "attention_mask": seen, "learned": learned, **values}


def _length(row: dict[str, Any]) -> int:
    return len(row["prompt_ids"]) + max(map(len, row["completion_ids"]))


def _fitting(rows: Any, limit: int | None) -> Any:
    """The rows whose longest answer fits. An answer that is cut has another log-probability than its reference."""
    kept = rows if limit is None else rows.filter(lambda row: _length(row) <= limit)
    if not len(kept):
        raise ValueError(f"none of {len(rows)} rows fits in max_length {limit}")
    return kept
