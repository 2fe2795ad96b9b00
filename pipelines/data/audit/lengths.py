"""What the lengths of rows in tokens mean under a limit: what is cut, what never ends, what no context holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trimtab.pipelines.data.audit.facts import Facts
from trimtab.pipelines.data.audit.tokens import MASKED, NEVER

Finding = tuple[str, np.ndarray, str]  # class, rows, what is wrong with the first


def limit(train: Any) -> int | None:
    """The length in tokens behind which a trainer takes no notice of a row, or None where it takes notice of all."""
    splits = getattr(train, "packing", False) and getattr(train, "packing_strategy", "bfd") != "bfd"
    return None if splits else getattr(train, "max_length", None)


def within(facts: Facts, tokenizer: Any, train: Any) -> Iterator[Finding]:
    """The classes that a limit makes of the answers."""
    rows, lengths, starts, ends = facts.arrays["answers"].T
    longest = limit(train)
    cut = np.full(len(lengths), np.iinfo(np.int32).max if longest is None else longest)
    yield "no_tokens", rows[lengths == 0], f"no tokens at all: {_name(tokenizer)} does not know this text"
    unlearned = (starts >= np.minimum(lengths, cut)) & (lengths > 0)
    yield "unlearned", rows[unlearned], f"nothing to learn: the answer is masked or beyond max_length ({longest})"
    first = int(lengths[lengths > cut][0]) if (lengths > cut).any() else 0
    yield "cut", rows[lengths > cut], f"{first} tokens, and max_length is {longest}"
    endless = ((ends < 0) | (ends >= cut)) & ~unlearned & (lengths > 0)
    if endless.any():
        yield "endless", rows[endless], _why_no_end(tokenizer, int(ends[endless][0]), longest)
    yield from _pairs(facts, cut, getattr(train, "truncation_mode", "keep_start") == "keep_start")


def _pairs(facts: Facts, cut: np.ndarray, from_start: bool) -> Iterator[Finding]:
    rows, lengths, starts, ends = facts.arrays["answers"].T
    chosen, rejected, common = facts.arrays["pairs"].T
    if len(common) == 0:
        return
    longest = cut[0] if from_start else np.iinfo(np.int32).max
    kept = np.minimum(lengths, longest)
    learned = starts[chosen] < kept[chosen]
    equal = (kept[chosen] == kept[rejected]) & (common >= kept[chosen]) & learned
    yield "equal_pairs", rows[chosen][equal], f"chosen equals rejected as tokens within max_length ({longest})"
    said = np.minimum(np.where(ends >= 0, ends, lengths), longest)
    shorter = np.where(said[chosen] <= said[rejected], chosen, rejected)
    begins = (common >= said[shorter]) & (said[shorter] > starts[shorter]) & ~equal
    yield "prefix_pairs", rows[chosen][begins], "one answer is the beginning of the other"


def beyond(facts: Facts, context: int | None, room: int, whose: str) -> Iterator[Finding]:
    """The prompts that leave no room for an answer of `room` tokens within a model's context."""
    rows, lengths = facts.arrays["prompts"].T
    yield "empty_prompt", rows[lengths == 0], "the prompt is empty, or white space alone"
    long = lengths + room > (context or np.inf)
    if long.any():
        needed = f"the prompt has {lengths[long][0]} tokens and its answer up to {room}"
        yield "beyond_context", rows[long], f"{needed}, and the context of {whose} is {context}"


def overlong(facts: Facts, limit: int) -> Finding:
    """The prompts that are longer than a data block's `max_prompt_tokens`."""
    rows, lengths = facts.arrays["prompts"].T
    long = lengths > limit
    first = int(lengths[long][0]) if long.any() else 0
    return "overlong", rows[long], f"the prompt has {first} tokens, and max_prompt_tokens is {limit}"


def _why_no_end(tokenizer: Any, end: int, longest: int | None) -> str:
    eos = tokenizer.eos_token
    if end >= 0:
        return f"the answer ends at token {end + 1}, beyond max_length ({longest}): its end is never learned"
    if end == NEVER:
        return (
            f"no answer ends with the tokenizer's end-of-sequence token {eos!r}: "
            "set train.eos_token to the token that ends a turn in the chat template"
        )
    assert end == MASKED
    masked = f"the end-of-sequence token {eos!r} is masked out of the loss"
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return f"{masked}: unmask it in the labels"
    return (
        f"{masked}, and it is also the padding token: give the tokenizer a padding token of its own (train.pad_token) "
        "and build the labels anew"
    )


def _name(tokenizer: Any) -> str:
    return getattr(tokenizer, "name_or_path", "") or "the tokenizer"
