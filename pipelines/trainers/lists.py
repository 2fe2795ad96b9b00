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
from trimtab.pipelines.trainers.masked_answers import MaskedAnswers
from trimtab.pipelines.trainers.row_means import RowMeansTrainer
from trimtab.pipelines.trainers.seams.trl import token_logps


class ListTrainer(RowMeansTrainer, SFTTrainer):
    """Takes rows with `prompt_ids`, `completion_ids` and the columns that the loss asks for.

    `completion_ids` are K lists, best first; rows may have different K. `loss` is one of pipelines.algorithms.losses
    with its constants bound: a function of `logps` (B, K) and, by name, of `lengths`, `present`, `ref_logps`,
    `win_probs` or `scores`, that returns (B,). Rows with an answer beyond `args.max_length` are left out; raises
    ValueError when none is left. With a `mask`, the tokens that it does not learn are read and have no loss, and
    `masked` holds what it has counted of each dataset. `ref_logps` may be given later, with `computed`, before the
    training.

    Logs `rewards/accuracies`, the share of ordered pairs whose implicit rewards stand in that order; `margins`, the
    implicit reward of the best answer minus that of the worst; `logps/best` and `logps/worst`, in nats per answer.
    The implicit reward is log pi / pi_ref in nats (that is, without beta); where the loss has no reference, it is the
    mean of log pi over the answer's tokens.
    """

    def __init__(
        self,
        *,
        loss: Callable[..., Tensor],
        args: SFTConfig,
        mask: MaskedAnswers | None = None,
        computed: bool = False,
        **kwargs: Any,
    ):
        self.masked: dict[str, dict[str, float]] = {}
        self.list_loss, self.asked = loss, set(inspect.signature(loss).parameters)
        args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
        args.remove_unused_columns = False  # the model's forward knows none of ours
        numbers = columns(self.asked)
        for name in ("train_dataset", "eval_dataset"):
            if kwargs.get(name) is not None:
                given = [column for column in numbers.values() if not (computed and column == "ref_logps")]
                needed = kwargs[name].select_columns(["prompt_ids", "completion_ids", *given])
                kwargs[name] = _fitting(needed, args.max_length)
                if mask is not None:
                    kwargs[name], self.masked[name] = mask.kept(kwargs[name])
        super().__init__(args=args, data_collator=ListCollator(numbers, mask), **kwargs)

    @property
    def left_out(self) -> dict[str, int]:
        """How many rows of each dataset the mask has left out."""
        reasons = ("rows_unmarked", "rows_nothing_left")
        return {name: int(sum(counts[reason] for reason in reasons)) for name, counts in self.masked.items()}

    def row_losses(self, model, inputs):
        learned = inputs["learned"]
        present = learned.any(-1)
        # only the answers that are there: (answers, tokens)
        per_token, router_loss = token_logps(
            model, inputs["input_ids"][present], inputs["attention_mask"][present], learned[present]
        )
        logps = per_token.new_zeros(present.shape)
        logps[present] = per_token.sum(-1)
        available = {**inputs, "lengths": learned.sum(-1), "present": present}
        losses = self.list_loss(logps, **{name: available[name] for name in self.asked & available.keys()})
        if self.aux_loss_enabled:  # of the batch as a whole: every row has it
            losses = losses + self.router_aux_loss_coef * router_loss
        self._tally(logps.detach(), available)
        return losses, {"logps": logps}

    def _tally(self, logps: Tensor, batch: dict[str, Tensor]) -> None:
        present, counts = batch["present"], batch["counts"]
        rewards = logps - batch["ref_logps"] if "ref_logps" in batch else logps / batch["lengths"].clamp(min=1)
        pairs = ordered_pairs(present) & counts[:, None, None]
        last = present.sum(-1, keepdim=True) - 1
        self.tally("rewards/accuracies", (rewards[:, :, None] > rewards[:, None, :]).float(), pairs)
        self.tally("margins", rewards[:, 0] - rewards.gather(1, last)[:, 0], counts)
        self.tally("logps/best", logps[:, 0], counts)
        self.tally("logps/worst", logps.gather(1, last)[:, 0], counts)


@dataclass
class ListCollator:
    """Rows become tensors, padded to the batch's largest K and, on the right, to its largest T.

    They are `input_ids`, `attention_mask` and `learned` (B, K, T), which is True at the answers' tokens, or those of
    them that the mask learns, every one of `columns` (name -> column) as (B, K) float32, and `counts` (B,), which is
    True.
    """

    columns: dict[str, str]
    mask: MaskedAnswers | None = None

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
                learned[i, k, start:end] = torch.tensor(self.mask(completion)) if self.mask else True
            for name, column in self.columns.items():
                values[name][i, : len(row[column])] = torch.tensor(row[column])
        counts = torch.ones(len(rows), dtype=torch.bool)
        return {"input_ids": ids, "attention_mask": seen, "learned": learned, "counts": counts, **values}


def _length(row: dict[str, Any]) -> int:
    return len(row["prompt_ids"]) + max(map(len, row["completion_ids"]))


def _fitting(rows: Any, limit: int | None) -> Any:
    """The rows whose longest answer fits. An answer that is cut has another log-probability than its reference."""
    kept = rows if limit is None else rows.filter(lambda row: _length(row) <= limit)
    if not len(kept):
        raise ValueError(f"none of {len(rows)} rows fits in max_length {limit}")
    return kept
