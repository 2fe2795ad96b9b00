"""Scores of many rows of tokens by a sequence-classification model, with as little work as gives the same numbers.

Equal rows are computed once. Rows are batched by length. The common beginning of several rows (the prompt of several
completions) is computed once, where that is less work: the rows stand in one row of the model behind their beginning,
and the attention mask and the positions keep them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Pack:
    """Rows of token ids whose first `shared` tokens are the same: one row of the model."""

    shared: int
    rows: tuple[tuple[int, ...], ...]

    @property
    def width(self) -> int:
        return self.shared + sum(len(row) - self.shared for row in self.rows)


class Forward:
    """Calls the model; shares beginnings where the model is found to allow it."""

    def __init__(self, model: Any):
        self.model = model
        self._pad: int = model.config.get_text_config().pad_token_id
        self._shares = self._can_share()

    def __call__(self, rows: Sequence[Sequence[int]], tokens_per_batch: int) -> list[list[float]]:
        """All heads' outputs for every row of token ids: len(rows) x heads.

        Batches hold at most `tokens_per_batch` tokens with their padding.
        """
        packs = self._packs(sorted({tuple(row) for row in rows}))
        packs.sort(key=lambda pack: -pack.width)  # what needs most memory first
        compute = self._packed if self._shares else self._plain
        outputs: dict[tuple[int, ...], list[float]] = {}
        start = 0
        while start < len(packs):
            block = packs[start : start + max(1, tokens_per_batch // packs[start].width)]
            start += len(block)
            inside = [row for pack in block for row in pack.rows]
            outputs |= zip(inside, compute(block).float().tolist(), strict=True)
        return [outputs[tuple(row)] for row in rows]

    def _packs(self, rows: Sequence[tuple[int, ...]]) -> list[Pack]:
        """Sorted rows, those with a common beginning together wherever that is less work for the model."""
        packs: list[Pack] = []
        for row in rows:
            alone = Pack(len(row), (row,))
            if packs and self._shares:
                last = packs[-1]
                together = Pack(_common(last.rows[0][: last.shared], row), (*last.rows, row))
                if self._work(together.width) < self._work(last.width) + self._work(alone.width):
                    packs[-1] = together
                    continue
            packs.append(alone)
        return packs

    def _work(self, width: int) -> float:
        """Operations of a layer for one row of tokens: its matrices, and attention to everything in the row."""
        size = self.model.config.get_text_config().hidden_size
        return width * (24 * size**2 + 4 * size * width)

    @torch.inference_mode()
    def _plain(self, packs: Sequence[Pack]) -> torch.Tensor:
        """One row each, through the checkpoint's own forward pass: any architecture."""
        rows = [row for pack in packs for row in pack.rows]
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[self._pad] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        device = self.model.device
        return self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits

    @torch.inference_mode()
    def _packed(self, packs: Sequence[Pack]) -> torch.Tensor:
        """Several rows behind one common beginning: each sees the beginning and itself, at its own positions."""
        width = max(pack.width for pack in packs)
        ids = torch.full((len(packs), width), self._pad)
        positions, part = torch.zeros_like(ids), torch.full_like(ids, -1)
        ends = []
        for line, pack in enumerate(packs):
            begin, start = pack.rows[0][: pack.shared], pack.shared
            ids[line, :start], part[line, :start] = torch.tensor(begin, dtype=torch.long), 0
            positions[line, :start] = torch.arange(start)
            for number, row in enumerate(pack.rows, start=1):
                tail = row[pack.shared :]
                stop = start + len(tail)
                ids[line, start:stop], part[line, start:stop] = torch.tensor(tail, dtype=torch.long), number
                positions[line, start:stop] = torch.arange(pack.shared, len(row))
                last = self._last(row)
                ends.append((line, start + last - pack.shared if last >= pack.shared else last))
                start = stop
        past = torch.ones(width, width, dtype=torch.bool).tril()
        seen = past & ((part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None]))
        dtype, device = self.model.dtype, self.model.device
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        hidden = self.model.base_model(
            input_ids=ids.to(device), attention_mask=mask[:, None].to(device), position_ids=positions.to(device)
        ).last_hidden_state
        lines, places = torch.tensor(ends, device=device).T
        return self.model.score(hidden[lines, places])

    def _last(self, row: Sequence[int]) -> int:
        """Where the model's own forward pass, and so its training, reads the score: the last token but for padding."""
        return next((place for place in reversed(range(len(row))) if row[place] != self._pad), 0)

    def _can_share(self) -> bool:
        """Whether `_packed` says what `_plain` says. It is tried, since not every architecture heeds the mask."""
        config = self.model.config.get_text_config()
        if not hasattr(self.model, "score") or getattr(config, "sliding_window", None):
            return False
        tokens = [3 + i % (config.vocab_size - 3) for i in range(48)]
        first, second = tuple(tokens[:24] + tokens[24:40]), tuple(tokens[:24] + tokens[32:48])
        try:
            packed = self._packed([Pack(24, (first, second))]).float()
            plain = self._plain([Pack(len(row), (row,)) for row in (first, second)]).float()
        except Exception:  # each architecture that does not know the mask says so in its own way
            return False
        return torch.allclose(packed, plain, rtol=1e-3 if self.model.dtype == torch.float32 else 5e-2, atol=1e-6)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens at the beginning of two rows are the same."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))
