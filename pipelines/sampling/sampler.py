"""Sampling many completions with transformers: a prompt is read once, and whoever has ended makes room.

The prompts that are to be read go through the model as one packed row (rewards/_packing.py). Then every row of the
batch is one completion, which attends to the keys and values of its prompt and to its own (decoding.py). When a
quarter of the rows has ended they leave, and the next prompts take their places.

Log-probabilities are read from the logits that the tokens are drawn by. Every completion has a seed of its own: which
it is does not depend on the batch, the order or the rank that it is sampled in, but for the last bits of arithmetic.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from trimtab.pipelines.recording import watch
from trimtab.pipelines.sampling import generation
from trimtab.pipelines.sampling.decoding import Decoding, Prompt, Reading
from trimtab.rewards import _packing
from trimtab.rewards._arithmetic import passing

if TYPE_CHECKING:
    from transformers import GenerationConfig

# keys of GenerationConfig that are honoured here; where there are others, transformers' own `generate` samples
HONOURED = {"do_sample", "temperature", "top_k", "top_p", "min_p", "max_new_tokens", "min_new_tokens", "eos_token_id"}
IDLE = {"pad_token_id", "bos_token_id", "transformers_version", "use_cache", "disable_compile",
        "_from_model_config"}  # fmt: skip  # change no token
NEUTRAL = {"repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "length_penalty": 1.0, "num_beams": 1,
           "num_return_sequences": 1, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "typical_p": 1.0}  # fmt: skip
STAY = 0.75  # of the rows: when fewer are going on, those that have ended leave


@dataclass(frozen=True)
class Request:
    """A completion that is asked for: of which token ids, and its seed, any numbers."""

    prompt: Sequence[int]
    seed: Sequence[int]


@dataclass(frozen=True)
class Completion:
    """Token ids up to and including the first stop, and their log-probabilities in nats at temperature 1."""

    ids: list[int]
    logprobs: list[float]


def can_sample(policy: Any, config: GenerationConfig, longest_prompt: int) -> bool:
    """Whether the sampler does all that is asked of transformers' `generate`."""
    asked = {key: value for key, value in config.to_diff_dict().items() if key not in HONOURED | IDLE}
    is_plain = all(value is None or value is False or value == NEUTRAL.get(key) for key, value in asked.items())
    whole = _packing.whole(policy)
    window = getattr(whole.config.get_text_config(), "sliding_window", None)
    is_inside = window is None or longest_prompt + config.max_new_tokens <= window
    takes = "logits_to_keep" in inspect.signature(whole.forward).parameters
    return is_plain and is_inside and takes and _packing.packs(policy)


@torch.no_grad()
def sample(
    policy: Any,
    requests: Sequence[Request],
    config: GenerationConfig,
    width: int,
    any_rank: Callable[[bool], bool] | None = None,
) -> list[Completion]:
    """The completions that are asked for, up to `width` at once. Those of one prompt stand together.

    With `any_rank`, which says whether any rank says yes, all of them take every pass through the policy together.
    """
    rows = [_Row(request.prompt, np.random.default_rng(request.seed)) for request in requests]
    _packing.pack(policy)
    batch, begun = _Batch(policy, config, any_rank), 0
    # weights that are trained are rounded once for all passes; of a policy in shards nobody keeps them whole
    with passing(policy.device) if any_rank is None else contextlib.nullcontext():
        while begun < len(rows) or batch.rows:
            stay = [number for number, row in enumerate(batch.rows) if not row.ended]
            room = width - len(stay)
            batch.renew(stay, rows[begun : begun + room])
            begun += room
            batch.advance()
        batch.wait()
    return [Completion(row.ids, row.logprobs) for row in rows]


@dataclass
class _Row:
    """A completion that is being sampled."""

    prompt: Sequence[int]
    random: np.random.Generator
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False


class _Batch:
    """The rows at hand, with the logits of what each says next."""

    def __init__(self, policy: Any, config: GenerationConfig, any_rank: Callable[[bool], bool] | None):
        self.policy, self.any_rank = policy, any_rank
        self.stops, self.longest = set(generation.listed(config.eos_token_id)), config.max_new_tokens
        self.draw = _Draw(config, sorted(self.stops))
        self.rows: list[_Row] = []
        self.decoding: Decoding | None = None
        self.logits: Tensor | None = None

    def renew(self, stay: list[int], admitted: list[_Row]) -> None:
        """Keeps the rows that `stay`, and reads the prompts of those that are new."""
        before, kept = self.decoding, torch.tensor(stay, dtype=torch.long, device=self.policy.device)
        prompts: list[Prompt] = []
        of, begun, logits, since, column = [], [], [], 0, 0
        if stay:
            assert before is not None
            assert self.logits is not None
            since = int(before.begun[kept].min())
            column = before.column - since
            still, place = before.of[kept].unique(return_inverse=True)
            prompts = [before.prompts[number] for number in still.tolist()]
            of, begun, logits = [place], [before.begun[kept] - since], [self.logits[kept]]
        if admitted:
            read, place, next_logits = self._read(admitted)
            of.append(place + len(prompts))
            begun.append(torch.full_like(place, column))
            logits.append(next_logits)
            prompts += read
        self.rows = [self.rows[number] for number in stay] + admitted
        if not self.rows:
            return
        self.logits = torch.cat(logits)
        self.decoding = Decoding(prompts, torch.cat(of), torch.cat(begun), column)
        if before is not None and stay:
            self.decoding.take(before, kept, since)

    def advance(self) -> None:
        """Draws tokens until a part of the rows has ended."""
        least = STAY * len(self.rows)
        while sum(not row.ended for row in self.rows) > least:
            watch.moved()
            assert self.logits is not None
            tokens, logprobs = self.draw(self.logits, self.rows)
            for row, token, logprob in zip(self.rows, tokens.tolist(), logprobs.tolist(), strict=True):
                if not row.ended:
                    row.ids.append(token)
                    row.logprobs.append(logprob)
                    row.ended = token in self.stops or len(row.ids) == self.longest
            if not all(row.ended for row in self.rows):
                self._hear(tokens)

    def wait(self) -> None:
        """Takes part in the passes of the ranks that have work left."""
        while self.any_rank is not None and self.any_rank(False):
            self.policy(input_ids=torch.zeros(1, 1, dtype=torch.long, device=self.policy.device), use_cache=False)

    def _read(self, rows: list[_Row]) -> tuple[list[Prompt], Tensor, Tensor]:
        """The prompts of new rows, whose prompt each row has, and the logits of the rows' first tokens."""
        device = self.policy.device
        groups = [(prompt, len(list(same))) for prompt, same in groupby(row.prompt for row in rows)]
        prompts, counts = [prompt for prompt, _ in groups], [count for _, count in groups]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        ids = pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True).to(device)
        mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
        packing = _packing.packed(ids, mask, worth=1.0)
        assert packing is not None
        reading = Reading(packing)
        last = packing.places[torch.arange(len(prompts), device=device), lengths - 1]
        logits = self._ask(ids[packing.rows, packing.columns][None], packing.columns[None], reading, last)
        kept = [reading.of_row(number, length) for number, length in enumerate(lengths.tolist())]
        place = torch.arange(len(prompts), device=device).repeat_interleave(torch.tensor(counts, device=device))
        return kept, place, logits[0][place]

    def _hear(self, tokens: Tensor) -> None:
        """Puts what every row has said behind it."""
        assert self.decoding is not None
        said = [len(row.prompt) + len(row.ids) - 1 for row in self.rows]
        positions = torch.tensor(said, device=tokens.device)[:, None]
        self.logits = self._ask(tokens[:, None], positions, self.decoding, 1)[:, -1]
        self.decoding.advance()

    def _ask(self, ids: Tensor, positions: Tensor, sees: Any, keep: Any) -> Tensor:
        if self.any_rank is not None:
            self.any_rank(True)
        nothing = _packing.unseen(ids)
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": nothing, "logits_to_keep": keep}
        with passing(self.policy.device):
            return self.policy(**inputs, use_cache=False, sees=sees).logits


class _Draw:
    """Draws the next token of every row."""

    def __init__(self, config: GenerationConfig, stops: list[int]):
        self.stops, self.least, self.greedy = stops, config.min_new_tokens or 0, not config.do_sample
        self.warpers = [] if self.greedy else list(_warpers(config))

    def __call__(self, logits: Tensor, rows: Sequence[_Row]) -> tuple[Tensor, Tensor]:
        """Tokens, and their log-probabilities by the logits as they are."""
        scores = logits.float()
        plain = scores.log_softmax(-1)
        early = [number for number, row in enumerate(rows) if len(row.ids) < self.least]
        if early:
            scores = scores.clone()
            scores[torch.tensor(early)[:, None], torch.tensor(self.stops)] = -torch.inf
        for warper in self.warpers:
            scores = warper(None, scores)
        tokens = scores.argmax(-1) if self.greedy else _drawn(scores, [row.random.random() for row in rows])
        return tokens, plain.gather(-1, tokens[:, None])[:, 0]


def _drawn(scores: Tensor, uniforms: Sequence[float]) -> Tensor:
    """One token of every row by the inverse of its distribution function."""
    below = scores.softmax(-1).cumsum(-1)
    wanted = torch.tensor(uniforms, dtype=below.dtype, device=below.device)[:, None] * below[:, -1:]
    # the first token of which more lies below than is wanted: never one of probability 0
    return torch.searchsorted(below, wanted, right=True)[:, 0].clamp(max=below.shape[-1] - 1)


def _warpers(config: GenerationConfig) -> Iterator[Any]:
    """transformers' own, in its order."""
    if config.temperature not in (None, 1.0):
        yield TemperatureLogitsWarper(config.temperature)
    if config.top_k:
        yield TopKLogitsWarper(config.top_k)
    if config.top_p is not None and config.top_p < 1.0:
        yield TopPLogitsWarper(config.top_p)
    if config.min_p is not None:
        yield MinPLogitsWarper(config.min_p)
