"""Scores of many rows of tokens by a sequence-classification model, with as little work as gives the same numbers.

Equal rows are computed once, and so is the common beginning of several rows (the prompt of several completions): the
rows are sorted so that those with a common beginning come into one batch, which is computed as in rewards/_packing.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from trimtab.rewards import _packing
from trimtab.rewards._arithmetic import passing


class Forward:
    """Calls the model, which packs its batches where it can; batches of one that cannot are sorted by length."""

    def __init__(self, model: Any):
        self.model = model
        self._pad: int = model.config.get_text_config().pad_token_id
        self.packs = _packing.packs(model)

    def __call__(self, rows: Sequence[Sequence[int]], tokens_per_batch: int) -> list[list[float]]:
        """All heads' outputs for every row of token ids: len(rows) x heads.

        Batches hold at most `tokens_per_batch` tokens, with what is computed of their padding.
        """
        distinct = sorted({tuple(row) for row in rows})
        if not self.packs:
            distinct.sort(key=len)
        outputs: dict[tuple[int, ...], list[float]] = {}
        for batch in self._batches(distinct, tokens_per_batch):
            outputs |= zip(batch, self._compute(batch), strict=True)
        return [outputs[tuple(row)] for row in rows]

    def _batches(self, rows: Sequence[tuple[int, ...]], tokens_per_batch: int) -> list[list[tuple[int, ...]]]:
        """The sorted rows, cut where one more would be beyond the budget."""
        before = [(), *rows]
        own = [len(row) - _common(last, row) if self.packs else len(row) for last, row in pairwise(before)]
        batches: list[list[tuple[int, ...]]] = [[]]
        filled = 0
        for row, tokens in zip(rows, own, strict=True):
            filled = filled + tokens if self.packs else (len(batches[-1]) + 1) * tokens
            if filled > tokens_per_batch and batches[-1]:
                batches.append([])
                filled = len(row)
            batches[-1].append(row)
        return batches if rows else []

    @torch.inference_mode()
    def _compute(self, rows: Sequence[tuple[int, ...]]) -> list[list[float]]:
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[self._pad] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        device = self.model.device
        with passing(device):
            output = self.model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
        return output.logits.float().tolist()


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens at the beginning of two rows are the same."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))
