"""Makes a model compute every token of a batch once: no padding, and a common beginning of several rows only once.

    pack(model)          # a decoder, with any head: training, scoring and log-probabilities all go through it

The rows of a padded batch (prompts with their answers, say) become one row without padding, in which each row's own
tokens stand behind those that it shares with another one:

    [prompt answer 1 | answer 2 | other prompt answer | ...]

Positions are those in the padded batch, and attention goes along each row's path: its own tokens, and the shared ones
in front of them. The hidden states are put back where the padded batch had them, so whatever is behind the backbone
(a language head, a score, a critic, an optimiser's loss) sees what it would have seen, to the arithmetic's precision.

A model that cannot be packed is found out at its first batch, by comparing the two ways, and goes on as it was.
"""

from __future__ import annotations

import functools
import inspect
import logging
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.rewards._alignment import align
from trimtab.rewards._arithmetic import passing
from trimtab.rewards._packed_attention import ATTENTION, Packing, Segment, register

logger = logging.getLogger(__name__)

SHARED = 8  # tokens: a shorter common beginning costs more to share than to compute
WORTH = 0.9  # of the padded batch's tokens: a batch that would keep more of them stays as it is
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}  # relative error of hidden states; of shorter types:
ROUNDED = 5e-2
TRIED = "packs_rows"  # of a backbone: whether packed rows are right for it; None until it was tried
# arguments of a forward pass that ask for what a packed row has not
REFUSED = ("use_cache", "output_hidden_states", "output_attentions", "output_router_logits")


def pack(model: Any) -> None:
    """Makes the backbone of `model` compute padded batches as packed rows, in place, from its next batch on.

    The model, a `PreTrainedModel` or one with adapters of peft, keeps its attention implementation for all else, such
    as generation. A batch stays padded where packing would save little, with dropout (rows that share a beginning
    would share its noise), with a cache, and where states of every layer, attentions or router logits are asked for.
    Its weights are aligned.
    """
    align(model)
    decoder = whole(model)
    backbone, base = decoder.base_model, decoder.config._attn_implementation
    padding = getattr(backbone.forward, "__func__", None)  # which hooks of accelerate hide
    is_simple = not (decoder.config.is_encoder_decoder or decoder.config.sub_configs)
    if hasattr(backbone, TRIED) or base not in ATTENTION or not is_simple or padding is None:
        return
    name = register(base)
    decoder.set_attn_implementation(name)
    if decoder.config._attn_implementation == name:  # its attention can be another function
        setattr(backbone, TRIED, None)
        backbone.forward = types.MethodType(_packing(padding), backbone)


def packs(model: Any) -> bool:
    """Packs the model and says whether it can be packed now, by trying it; while it drops out it cannot."""
    pack(model)
    backbone = whole(model).base_model
    if not hasattr(backbone, TRIED) or _drops_out(backbone):
        return False
    if getattr(backbone, TRIED) is None:
        ids, mask = _trial(backbone.config.get_text_config().vocab_size, backbone.device)
        with torch.no_grad(), passing(backbone.device):  # the model as a whole, which FSDP has to see first
            model(input_ids=ids, attention_mask=mask, use_cache=False)
    return getattr(backbone, TRIED)


def whole(model: Any) -> Any:
    """The model itself, or the one inside that peft has given adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _packing(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A backbone's forward, given the one that pads."""
    names = list(inspect.signature(plain).parameters)[1:]

    @functools.wraps(plain)
    def forward(backbone: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs |= dict(zip(names, args, strict=False))
        # tried by all ranks together, since a sharded model computes on all of them, whatever their batches are
        if not _fits(backbone, kwargs) or not _tried(backbone, plain):
            return plain(backbone, **kwargs)
        packing = packed(kwargs["input_ids"], kwargs["attention_mask"])
        return plain(backbone, **kwargs) if packing is None else _run(backbone, plain, packing, kwargs)

    return forward


def _fits(backbone: Any, kwargs: dict[str, Any]) -> bool:
    """Whether no more is asked for than the last hidden states of a padded batch."""
    ids, mask = kwargs.get("input_ids"), kwargs.get("attention_mask")
    padded = ids is not None and mask is not None and mask.shape == ids.shape
    simple = kwargs.get("past_key_values") is None and not any(kwargs.get(key) for key in REFUSED)
    return padded and simple and getattr(backbone, TRIED) is not False and not _drops_out(backbone)


def _run(backbone: Any, plain: Callable[..., Any], packing: Packing, kwargs: dict[str, Any]) -> Any:
    ids, positions = kwargs["input_ids"], kwargs.get("position_ids")
    rows, columns = packing.rows, packing.columns
    kept = columns if positions is None else positions.expand(ids.shape)[rows, columns]
    one_row = {
        "input_ids": ids[rows, columns][None],
        "position_ids": kept[None],
        "attention_mask": unseen(ids),
        "use_cache": False,
        "sees": packing,
    }
    output = plain(backbone, **kwargs | one_row)
    output.last_hidden_state = output.last_hidden_state[0][packing.places]
    return output


def unseen(ids: Tensor) -> Tensor:
    """An attention mask for a pass with `sees`: of four dimensions, it is taken as it is, and not looked at."""
    return ids.new_empty(1, 1, 0, 0)


@torch.no_grad()
def _tried(backbone: Any, plain: Callable[..., Any]) -> bool:
    """Whether both ways give the same hidden states for a small batch, which is tried once."""
    if getattr(backbone, TRIED) is None:
        reason = _difference(backbone, plain)
        setattr(backbone, TRIED, reason is None)
        if reason is not None:
            logger.warning("%s is trained and asked with padding: %s", type(backbone).__name__, reason)
    return getattr(backbone, TRIED)


def _difference(backbone: Any, plain: Callable[..., Any]) -> str | None:
    """Why a backbone cannot be packed, in words; None where it can."""
    ids, mask = _trial(backbone.config.get_text_config().vocab_size, backbone.device)
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    packing = packed(ids, mask)
    assert packing is not None
    try:
        padded = plain(backbone, **inputs).last_hidden_state[mask.bool()].float()
        one_row = _run(backbone, plain, packing, inputs).last_hidden_state[mask.bool()].float()
    except Exception as error:  # each architecture that does not know packed rows says so in its own way
        return f"{type(error).__name__}: {error}"
    relative = float((one_row - padded).norm() / padded.norm())
    allowed = ROUNDED if _is_rounded(backbone.device) else TOLERANCE.get(backbone.dtype, ROUNDED)
    return None if relative < allowed else f"packed rows move its hidden states by {relative:.1e}"


def _is_rounded(device: torch.device) -> bool:
    """Whether matrix products of float32 are computed with fewer bits here."""
    is_tf32 = device.type == "cuda" and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return is_tf32 or torch.is_autocast_enabled(device.type)


def packed(ids: Tensor, mask: Tensor, worth: float = WORTH) -> Packing | None:
    """The packing of a batch (B, T) with its attention mask; None where a mask has holes, or it would save little.

    `worth` is the largest share of the padded batch's tokens that is worth it.
    """
    tokens, seen = ids.cpu().numpy(), mask.cpu().numpy().astype(bool)
    starts = seen.argmax(1)
    stops = starts + seen.sum(1)
    columns = np.arange(tokens.shape[1])
    if (seen != ((columns >= starts[:, None]) & (columns < stops[:, None]))).any():
        return None
    places = np.zeros(tokens.shape, dtype=np.int64)
    parts: list[tuple[int, int, int]] = []  # row, and the columns from which to which it has tokens of its own
    segments: list[Segment] = []
    total, last = 0, -1
    for row in _by_beginning(tokens, starts, stops):
        shared = _shared(tokens, starts, stops, last, row) if last >= 0 else 0
        first, stop = starts[row] + shared, stops[row]
        places[row, starts[row] : first] = places[last, starts[row] : first]
        places[row, first:stop] = np.arange(total, total + stop - first)
        path = _spans(places[row, starts[row] : stop])
        parts.append((row, first, stop))
        segments.append(Segment(total, total + int(stop - first), path))
        total, last = segments[-1].stop, row
    if not segments or total > worth * tokens.size:
        return None
    rows = np.concatenate([np.full(stop - first, row) for row, first, stop in parts])
    columns = np.concatenate([np.arange(first, stop) for _, first, stop in parts])
    indices = (torch.from_numpy(index).to(ids.device) for index in (rows, columns, places))
    return Packing(tuple(segments), *indices)


def _by_beginning(tokens: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> list[int]:
    """The rows that have tokens, sorted by them: the one that a row shares most with is its neighbour."""
    filled = [row for row in range(len(tokens)) if stops[row] > starts[row]]
    ordered = tokens.astype(">u4")  # whose bytes are sorted as the numbers are
    return sorted(filled, key=lambda row: (starts[row], ordered[row, starts[row] : stops[row]].tobytes()))


def _shared(tokens: np.ndarray, starts: np.ndarray, stops: np.ndarray, last: int, row: int) -> int:
    """How many tokens a row has from `last`; the last token of a row is always its own."""
    if starts[last] != starts[row]:
        return 0
    stop = min(stops[last], stops[row] - 1)
    different = np.flatnonzero(tokens[last, starts[row] : stop] != tokens[row, starts[row] : stop])
    shared = int(different[0]) if len(different) else int(stop - starts[row])
    return shared if shared >= SHARED else 0


def _spans(places: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Places in the packed row as spans of consecutive ones."""
    cuts = np.flatnonzero(np.diff(places) != 1) + 1
    return tuple((int(span[0]), int(span[-1]) + 1) for span in np.split(places, cuts))


def _drops_out(backbone: Any) -> bool:
    """Whether it is training with dropout, in a module or, as some families have it, in the attention function."""
    if not backbone.training:
        return False
    rates = [module.p for module in backbone.modules() if isinstance(module, nn.Dropout)]
    rates += [getattr(backbone.config, key, 0) for key in ("attention_dropout", "attn_pdrop")]
    return any(rates)


def _trial(vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A small batch of token ids with its mask: pairs of rows with a common beginning, padded on the right."""
    width = 48
    ids = torch.arange(4 * width, device=device).reshape(4, width) % vocabulary
    ids[1, :24], ids[3, :30] = ids[0, :24], ids[2, :30]
    stops = torch.tensor([[40], [31], [48], [36]], device=device)
    mask = (torch.arange(width, device=device) < stops).long()
    return ids, mask
