"""Reward model training on rankings of K answers, with the Plackett-Luce likelihood.

Each answer goes through the model once, where K answers as pairs would go through it K-1 times.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from trl import RewardTrainer

from trimtab.pipelines.algorithms.losses import mean_where, ordered_pairs
from trimtab.pipelines.algorithms.preference import plackett_luce
from trimtab.pipelines.trainers.row_means import RowMeansTrainer
from trimtab.rewards._rendering import render_all


@dataclass
class RankingCollator:
    """Rows of `ranked_ids` become `input_ids` and `attention_mask`, of the answers of all rows, padded on the right.

    `present` (rows, largest K) says where the answers stand, and `counts` (rows,) is True.
    """

    pad_token_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rankings = [row["ranked_ids"] for row in rows]
        answers = [torch.tensor(ids) for ids in chain.from_iterable(rankings)]
        counts = torch.tensor([len(ranking) for ranking in rankings])
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "input_ids": pad(answers, batch_first=True, padding_value=self.pad_token_id),
            "attention_mask": pad([torch.ones_like(ids) for ids in answers], batch_first=True),
            "present": torch.arange(int(counts.max()))[None, :] < counts[:, None],
            "counts": torch.ones(len(rows), dtype=torch.bool),
        }


class ListwiseRewardTrainer(RowMeansTrainer, RewardTrainer):
    """Takes rows with `prompt` and `completions` (best first, strings or messages); rows may have different K.

    Logs `accuracy`, the share of ordered pairs of answers whose rewards stand in that order, and `mean_reward`, over
    answers. `args.center_rewards_coefficient` times the mean of a row's squared rewards is added to its loss.
    """

    columns: tuple[str, ...] = ("ranked_ids",)  # what the collator reads
    collator: type[RankingCollator] = RankingCollator

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.data_collator = self.collator(self.processing_class.pad_token_id)

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        if "ranked_ids" in dataset.column_names:
            return dataset

        def tokenize(row: dict[str, Any]) -> dict[str, Any]:
            answers = [(row["prompt"], completion, row) for completion in row["completions"]]
            return {"ranked_ids": [tokens.ids for tokens in render_all(processing_class, answers)]}

        prepared = dataset.map(tokenize, desc=f"Tokenizing {dataset_name} dataset", num_proc=args.dataset_num_proc)
        if args.max_length is not None:
            prepared = prepared.filter(lambda row: all(len(ids) <= args.max_length for ids in row["ranked_ids"]))
        return prepared

    def _set_signature_columns_if_needed(self):
        self._signature_columns = list(self.columns)

    def losses(self, rewards: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """(rows,): the loss of each row, from rewards (rows, largest K), which are -inf where no answer is."""
        return plackett_luce(rewards)

    def pairs(self, inputs: dict[str, Any]) -> torch.Tensor:
        """(rows, K, K): True where the first answer is better than the second one."""
        return ordered_pairs(inputs["present"])

    def row_losses(self, model, inputs):
        present, counts = inputs["present"], inputs["counts"]
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        rewards = torch.full_like(present, -torch.inf, dtype=torch.float32)
        rewards[present] = outputs.logits.squeeze(-1).float()
        losses = self.losses(rewards, inputs)
        if self.args.center_rewards_coefficient is not None:
            squares = rewards.where(present, 0.0).square()
            losses = losses + self.args.center_rewards_coefficient * mean_where(squares, present)
        pairs = self.pairs(inputs) & counts[:, None, None]
        self.tally("accuracy", (rewards[:, :, None] > rewards[:, None, :]).float(), pairs)
        self.tally("mean_reward", rewards, present & counts[:, None])
        return losses, {"logits": outputs.logits}
