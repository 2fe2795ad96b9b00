"""Text cut into passages, drawn without reuse before all have had their turn, and found again by words (BM25)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from string import Formatter

from trimtab.pipelines.planning.errors import RecipeError


def cut(texts: Iterable[str], words: int, overlap: int) -> list[str]:
    """Passages of at most `words` words, each beginning with the last `overlap` of the one before; none is empty."""
    passages = []
    for text in texts:
        said = text.split()
        starts = range(0, max(1, len(said) - overlap), words - overlap)
        passages += [" ".join(said[start : start + words]) for start in starts if said]
    return passages


def check_cut(words: int, overlap: int, place: Sequence[str]) -> None:
    """Raises RecipeError for lengths by which no text can be cut."""
    for key, value, least in (("words", words, 1), ("overlap", overlap, 0)):
        if value < least:
            raise RecipeError(f"must be at least {least}, got {value}", (*place, key))
    if overlap >= words:
        raise RecipeError(f"must be below `words` ({words}), got {overlap}", (*place, "overlap"))


def turns(count: int, of_turn: int, seed: int) -> Iterator[list[int]]:
    """The numbers of passages, `of_turn` at a time, without end: each comes once before any comes again.

    Where `count` is no multiple, a pass leaves out its last ones, so that no turn has a passage twice.
    """
    import numpy as np

    times = 0
    while True:
        order = np.random.default_rng([seed, times]).permutation(count).tolist()
        yield from (order[start : start + of_turn] for start in range(0, count - of_turn + 1, of_turn))
        times += 1


def of_round(count: int, of_turn: int, number: int, wanted: int, seed: int) -> list[list[int]]:
    """The turns of a round, `wanted` in each, which go on where those of the round before have ended."""
    return list(islice(turns(count, of_turn, seed), (number - 1) * wanted, number * wanted))


def check_places(template: str, places: Collection[str], place: Sequence[str], optional: Collection[str] = ()) -> None:
    """Raises RecipeError for a template with something else in braces, or without one of its places."""
    named = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    if named - set(optional) != set(places):
        wanted = " and ".join(f"{{{name}}}" for name in places)
        there = ", ".join(f"{{{name}}}" for name in sorted(named)) or "none"
        raise RecipeError(f"takes {wanted}, and has {there}: two braces are one, {{{{ and }}}}", place)


def require_library(place: Sequence[str]) -> None:
    """Raises RecipeError where the library that looks passages up is not installed."""
    if find_spec("bm25s") is None:
        raise RecipeError("passages are looked up by bm25s, which is missing: pip install 'trimtab[retrieval]'", place)


def similar(passages: Sequence[str], queries: Sequence[str], count: int) -> list[list[int]]:
    """The numbers of the `count` passages that have most in common with each query by BM25, the best first.

    Those that share no word with it are left out.
    """
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets DEBUG itself
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(passages), stopwords="en", show_progress=False), show_progress=False)
    asked = bm25s.tokenize(list(queries), stopwords="en", show_progress=False)
    numbers, scores = index.retrieve(asked, k=min(count, len(passages)), show_progress=False)
    pairs = zip(numbers.tolist(), scores.tolist(), strict=True)
    return [[number for number, score in zip(*of_query, strict=True) if score > 0] for of_query in pairs]
