"""Attention of packed rows: what every token of a row without padding sees, and the kernels that compute it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # before torch 2.10
    varlen_attn = None
VARLEN = set() if varlen_attn is None else set(inspect.signature(varlen_attn).parameters)
if not {"scale", "window_size"} <= VARLEN:
    varlen_attn = None

ATTENTION, MASKS = AttentionInterface(), AttentionMaskInterface()  # by name, of all models
SUFFIX = "_packed"  # of the name of an attention implementation that knows packed rows


@dataclass(frozen=True)
class Segment:
    """A row's own tokens, `start` to `stop` of the packed row, and the spans of all that they may see."""

    start: int
    stop: int
    path: tuple[tuple[int, int], ...]  # the last span is the segment itself

    @property
    def seen(self) -> int:
        """How many tokens the last one of the segment sees, itself included."""
        return sum(stop - start for start, stop in self.path)


class Sight(Protocol):
    """What a forward pass of a packed model is given as `sees=`: what each of its tokens attends to."""

    def attention(self, base: str, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Any:
        """(batch, tokens, heads, size), of query, key and value as (batch, heads, tokens, size)."""


@dataclass
class Packing:
    """How a padded batch is one row without padding."""

    segments: tuple[Segment, ...]
    rows: Tensor  # (N,), int64: where a token of the packed row stands in the padded batch, its row ...
    columns: Tensor  # ... and its column
    places: Tensor  # (B, T), int64: where a token of the padded batch stands in the packed row; 0 for padding
    masks: dict[Any, Tensor] = field(default_factory=dict)  # of attention, made when they are first asked for

    @functools.cached_property
    def lengths(self) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """What kernels for rows of different lengths want of all segments.

        The places of all paths one after the other; where segments and paths end, counted from 0 on (int32); the most
        tokens of a segment and of a path.
        """
        device = self.rows.device
        own = [segment.stop - segment.start for segment in self.segments]
        seen = [segment.seen for segment in self.segments]
        spans = [torch.arange(start, stop) for segment in self.segments for start, stop in segment.path]
        ends = (np.cumsum([0, *lengths], dtype=np.int32) for lengths in (own, seen))
        own_ends, path_ends = (torch.from_numpy(end).to(device) for end in ends)
        return torch.cat(spans).to(device), own_ends, path_ends, max(own), max(seen)

    @functools.cached_property
    def pieces(self) -> tuple[list[int], list[list[int]]]:
        """The tokens of each piece between two places where a path is cut; and the pieces of every segment's path."""
        spans = [span for segment in self.segments for span in segment.path]
        places = sorted({0, *(place for span in spans for place in span)})
        number = {place: index for index, place in enumerate(places)}
        paths = [
            [piece for start, stop in segment.path for piece in range(number[start], number[stop])]
            for segment in self.segments
        ]
        return np.diff(places).tolist(), paths

    def attention(
        self,
        base: str,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None = None,
        sliding_window: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Every segment's attention along its path."""
        if "flash" in base:
            return self._by_flash(base, module, query, key, value, scaling, sliding_window, kwargs)
        if varlen_attn is not None and query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
            return self._by_varlen(query, key, value, scaling, sliding_window)
        return self._by_segments(query, key, value, scaling, sliding_window)

    def _by_segments(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Scaled dot-product attention of one segment after the other: any device and type."""
        outputs = []
        # the gradient of a slice has the size of the whole row, and that of all splits together has
        sizes, paths = self.pieces
        asked = query.split([segment.stop - segment.start for segment in self.segments], dim=2)
        keys, values = key.split(sizes, dim=2), value.split(sizes, dim=2)
        for segment, own, path in zip(self.segments, asked, paths, strict=True):
            mask = self._mask(segment, window, query)
            outputs.append(
                F.scaled_dot_product_attention(
                    own,
                    _joined(keys, path),
                    _joined(values, path),
                    attn_mask=mask,
                    is_causal=mask is None,
                    scale=scaling,
                    enable_gqa=query.shape[1] != key.shape[1],
                )
            )
        return torch.cat(outputs, dim=2).transpose(1, 2)

    def _by_varlen(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """One kernel for all segments, on CUDA in 16 bits."""
        paths, own_ends, path_ends, longest, longest_path = self.lengths
        grouped = {"enable_gqa": query.shape[1] != key.shape[1]} if "enable_gqa" in VARLEN else {}
        if not grouped:  # before torch 2.12 each head has its own keys
            key, value = (states.repeat_interleave(query.shape[1] // key.shape[1], 1) for states in (key, value))
        return varlen_attn(
            query[0].transpose(0, 1),
            key[0].transpose(0, 1)[paths],
            value[0].transpose(0, 1)[paths],
            own_ends,
            path_ends,
            longest,
            longest_path,
            scale=scaling,
            window_size=(-1 if window is None else window - 1, 0),  # causal, from the end of the path
            **grouped,
        )[None]

    def _by_flash(
        self,
        base: str,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        window: int | None,
        kwargs: dict[str, Any],
    ) -> Tensor:
        """The flash attention that the model was loaded with, which knows rows of different lengths."""
        paths, own_ends, path_ends, longest, longest_path = self.lengths
        lengths = {"cu_seq_lens_q": own_ends, "cu_seq_lens_k": path_ends}
        longests = {"max_length_q": longest, "max_length_k": longest_path}
        kwargs = kwargs | {"scaling": scaling, "sliding_window": window} | lengths | longests
        along = key[:, :, paths], value[:, :, paths]
        return ATTENTION[base](module, query, *along, None, **kwargs)[0]

    def _mask(self, segment: Segment, window: int | None, like: Tensor) -> Tensor | None:
        """What a segment may see, to be added to its scores: (tokens, tokens seen). None for all before each token."""
        own, seen = segment.stop - segment.start, segment.seen
        width = seen if window is None else min(seen, window)
        if own == seen == width:
            return None
        key = (segment.start, width, like.dtype, like.device)
        if key not in self.masks:
            allowed = torch.ones(own, seen, dtype=torch.bool, device=like.device)
            allowed = allowed.tril(seen - own).triu(seen - own - width + 1)
            self.masks[key] = torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, -torch.inf)
        return self.masks[key]


def _joined(pieces: Sequence[Tensor], path: Sequence[int]) -> Tensor:
    """Keys or values of a path, in one."""
    return pieces[path[0]] if len(path) == 1 else torch.cat([pieces[piece] for piece in path], dim=2)


def attend(
    base: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    sees: Sight | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention as `sees` says; without it, that of the implementation `base`."""
    if sees is None:
        return ATTENTION[base](module, query, key, value, attention_mask, **kwargs)
    if kwargs.get("softcap") is not None:
        raise NotImplementedError("attention with a soft cap")
    if torch.is_autocast_enabled(
        query.device.type
    ):  # where positions are turned in float32, and kernels take one type
        query, key, value = (states.to(torch.get_autocast_dtype(query.device.type)) for states in (query, key, value))
    return sees.attention(base, module, query, key, value, **kwargs), None


def register(base: str) -> str:
    """The name of the attention implementation that is `base` but for packed rows."""
    name = base + SUFFIX
    if name not in ATTENTION:
        AttentionInterface.register(name, functools.partial(attend, base))
        if base in MASKS:
            AttentionMaskInterface.register(name, MASKS[base])
    return name
