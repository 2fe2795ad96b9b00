"""Reward model training on rankings of K answers, with the Plackett-Luce likelihood.

Each answer goes through the model once, where K answers as pairs would go through it K-1 times.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from trl import RewardTrainer

from trimtab.pipelines.algorithms.preference import plackett_luce
from trimtab.rewards._rendering import render_all


class ListwiseRewardTrainer(RewardTrainer):
    """Takes rows with `prompt` and `completions` (best first, strings or messages); rows may have different K."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.data_collator = RankingCollator(self.processing_class.pad_token_id)

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
        self._signature_columns = ["ranked_ids"]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        mode = "train" if self.model.training else "eval"
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        rewards = torch.full_like(inputs["present"], -torch.inf, dtype=outputs.logits.dtype)
        rewards[inputs["present"]] = outputs.logits.squeeze(-1)
        loss = plackett_luce(rewards).mean()
        if self.args.center_rewards_coefficient is not None:
            loss = loss + self.args.center_rewards_coefficient * outputs.logits.square().mean()
        with torch.no_grad():
            pairs = inputs["present"][:, :, None] & inputs["present"][:, None, :]
            above = torch.ones_like(pairs).triu(1) & pairs  # (better, worse)
            right = (rewards[:, :, None] > rewards[:, None, :]) & above
            counts = self.accelerator.gather(torch.stack([right.sum(), above.sum()])[None]).sum(0)
            mean = self.accelerator.gather(outputs.logits.mean()[None]).mean()
            self._metrics[mode]["accuracy"].append((counts[0] / counts[1]).item())
            self._metrics[mode]["mean_reward"].append(mean.item())
        return (loss, outputs) if return_outputs else loss


@dataclass
class RankingCollator:
    """Rows of `ranked_ids` become `input_ids` and `attention_mask`, of the answers of all rows, padded on the right.

    `present` (rows, largest K) says where the answers stand.
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
        }
