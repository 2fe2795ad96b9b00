"""The keys and values of completions that are being sampled, and the attention of their next tokens.

A row is one completion. Its prompt's keys and values lie once for all completions of the prompt, padded to the
longest prompt; its own lie in columns that all rows share, so that a row that began later begins at a later column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from trimtab.rewards._packed_attention import Packing

COLUMNS = 64  # made at once
Prompt = list[tuple[Tensor, Tensor]]  # keys and values of one prompt, by layer: (tokens, heads, size)


@dataclass
class Reading:
    """Reads packed prompts and keeps their keys and values: by layer, (1, heads, tokens, size)."""

    packing: Packing
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def attention(
        self, base: str, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any
    ) -> Tensor:
        self.kept[module.layer_idx] = key, value  # type: ignore[index]
        return self.packing.attention(base, module, query, key, value, **kwargs)

    def of_row(self, row: int, length: int) -> Prompt:
        """The keys and values of one prompt that was read."""
        places = self.packing.places[row, :length]
        return [
            (key[0, :, places].transpose(0, 1), value[0, :, places].transpose(0, 1))
            for _, (key, value) in sorted(self.kept.items())
        ]


class Decoding:
    """What the rows have said, as keys and values, and the attention of their next token.

    `of` (rows,) says whose prompt a row has, and `begun` (rows,) in which column it has begun. The next token is said
    in `column`.
    """

    def __init__(self, prompts: Sequence[Prompt], of: Tensor, begun: Tensor, column: int):
        self.prompts, self.of, self.begun, self.column = prompts, of, begun, column
        layers = range(len(prompts[0]))
        self.prompt_keys = [_stacked([prompt[layer][0] for prompt in prompts]) for layer in layers]
        self.prompt_values = [_stacked([prompt[layer][1] for prompt in prompts]) for layer in layers]
        lengths = torch.tensor([len(prompt[0][0]) for prompt in prompts], device=of.device)
        self.prompt_bias = _hidden(torch.arange(int(lengths.max()), device=of.device) >= lengths[:, None])
        counts = torch.bincount(of, minlength=len(prompts))
        self.most = int(counts.max())
        # rows of a prompt stand together: which of them a row is, counted from 0 on
        self.slots = of * self.most + torch.arange(len(of), device=of.device) - (counts.cumsum(0) - counts)[of]
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._widen()

    def take(self, other: Decoding, rows: Tensor, since: int) -> None:
        """Makes its first rows those `rows` of `other`, whose columns before `since` are left out."""
        said = slice(since, other.column)
        for mine, theirs in ((self.keys, other.keys), (self.values, other.values)):
            for layer, states in enumerate(theirs):
                mine[layer][: len(rows), :, : other.column - since] = states[rows, :, said]

    def advance(self) -> None:
        """Goes to the next column, once all layers have written the last one."""
        self.column += 1
        if self.column == self.own_bias.shape[-1]:
            self._widen()

    def attention(
        self,
        base: str,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> Tensor:
        layer: int = module.layer_idx  # type: ignore[assignment]
        scaling = scaling or query.shape[-1] ** -0.5
        self.keys[layer][:, :, self.column] = key[:, :, 0]
        self.values[layer][:, :, self.column] = value[:, :, 0]
        asked = query[:, :, 0].unflatten(1, (key.shape[1], -1)) * scaling  # rows, key heads, heads of each, size
        until = self.column + 1
        own, own_most, own_sum = _attended(
            asked, self.keys[layer][:, :, :until], self.values[layer][:, :, :until], self.own_bias[..., :until]
        )
        together = self._by_prompt(asked)
        of_prompt = _attended(together, self.prompt_keys[layer], self.prompt_values[layer], self.prompt_bias)
        prompt, prompt_most, prompt_sum = (self._by_row(part, asked.shape[2]) for part in of_prompt)
        most = torch.maximum(own_most, prompt_most)
        own_share, prompt_share = (own_most - most).exp(), (prompt_most - most).exp()
        total = own_sum * own_share + prompt_sum * prompt_share
        return ((own * own_share + prompt * prompt_share) / total).flatten(1, 2)[:, None].to(query.dtype)

    def _by_prompt(self, asked: Tensor) -> Tensor:
        """Queries (rows, key heads, heads, size) by prompt: (prompts, key heads, most rows x heads, size)."""
        places = asked.new_zeros(len(self.prompts) * self.most, *asked.shape[1:])
        places[self.slots] = asked
        return places.unflatten(0, (-1, self.most)).transpose(1, 2).flatten(2, 3)

    def _by_row(self, states: Tensor, heads: int) -> Tensor:
        """The way back."""
        return states.unflatten(2, (-1, heads)).transpose(1, 2).flatten(0, 1)[self.slots]

    def _widen(self) -> None:
        rows = len(self.of)
        for states, prompts in ((self.keys, self.prompt_keys), (self.values, self.prompt_values)):
            for layer, prompt in enumerate(prompts):
                width = states[layer].shape[2] if len(states) > layer else 0
                columns = max(COLUMNS, width, self.column + 1 - width)
                more = prompt.new_zeros(rows, prompt.shape[1], columns, prompt.shape[3])
                if width:
                    states[layer] = torch.cat([states[layer], more], dim=2)
                else:
                    states.append(more)
        columns = torch.arange(self.keys[0].shape[2], device=self.of.device)
        self.own_bias = _hidden(columns < self.begun[:, None])


def _attended(asked: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values by attention without its last division: their sum, the greatest score, and the sum of the weights."""
    scores = (asked @ keys.transpose(-1, -2)).float() + bias
    most = scores.amax(-1, keepdim=True)
    weights = (scores - most).exp()
    return (weights.to(values.dtype) @ values).float(), most, weights.sum(-1, keepdim=True)


def _stacked(states: Sequence[Tensor]) -> Tensor:
    """Prompts of (tokens, heads, size) each as one (prompts, heads, tokens of the longest, size)."""
    return pad_sequence(list(states), batch_first=True).transpose(1, 2).contiguous()


def _hidden(where: Tensor) -> Tensor:
    """What hides keys from attention: (rows, 1, 1, columns), very low where `where` (rows, columns) is True."""
    return torch.zeros(where.shape, device=where.device).masked_fill(where, -1e30)[:, None, None]
