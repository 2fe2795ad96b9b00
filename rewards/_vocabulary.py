"""Whose token ids they are: the column `vocabulary` beside a row's ids, which says which vocabulary they are of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

COLUMN = "vocabulary"


def identity(tokenizer: Any) -> str:
    """A hash of what each token id means to a tokenizer.

    Tokens for padding that somebody has added do not count: they are in no text.
    """
    return _hash(tokenizer, len(tokenizer))


def foreign(tokenizer: Any, vocabularies: Sequence[str | None] | None) -> list[int]:
    """The rows whose ids are of another vocabulary than the tokenizer's, by their column; None says nothing."""
    named = {vocabulary for vocabulary in vocabularies or () if vocabulary}
    others = named - {identity(tokenizer)} if named else set()
    return [row for row, vocabulary in enumerate(vocabularies or ()) if vocabulary in others]


@lru_cache(maxsize=8)
def _hash(tokenizer: Any, size: int) -> str:
    """The identity of a tokenizer as long as it has that size: it is asked for again with every batch."""
    padding = {token for token in tokenizer.get_added_vocab() if "pad" in token.lower()}
    words = sorted((index, token) for token, index in tokenizer.get_vocab().items() if token not in padding)
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
