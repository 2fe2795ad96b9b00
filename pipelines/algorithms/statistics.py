"""Means with standard errors, confidence intervals of shares, and diversity."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import ArrayLike

GRAMS = 1 << 20  # n-grams that wait, at least, before they are sorted among the others


def mean_stderr(values: ArrayLike) -> tuple[float, float]:
    """Mean and its standard error, std(ddof=1) / sqrt(n); the error of a single value is nan."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return math.nan, math.nan
    spread = array.std(ddof=1) if array.size > 1 else math.nan
    return float(array.mean()), float(spread / math.sqrt(array.size))


def grouped(values: Sequence[float | None], groups: Sequence[int]) -> dict[str, float]:
    """`mean` over groups of the mean over each one's values, and its `stderr`; None values are left out.

    {} where nothing is left.
    """
    members: dict[int, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        if value is not None:
            members.setdefault(group, []).append(value)
    if not members:
        return {}
    mean, stderr = mean_stderr([sum(group) / len(group) for group in members.values()])
    return {"mean": mean, "stderr": stderr}


def wilson(rate: float, n: float, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95% score interval of a share `rate` of `n` trials (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


class Grams:
    """Counts word n-grams, and the different ones among them, by hashes of 64 bits: 8 bytes for each of the latter."""

    def __init__(self, n: int):
        self.n, self.count = n, 0
        self.different, self.waiting = np.empty(0, dtype=np.int64), array("q")

    def add(self, words: Sequence[str]) -> None:
        """Adds those of a text."""
        self.waiting.extend(map(hash, zip(*(words[start:] for start in range(self.n)), strict=False)))
        if len(self.waiting) > max(GRAMS, len(self.different) // 4):
            self._sort()

    def distinct(self) -> float:
        """Distinct-n (Li et al. 2016, https://arxiv.org/abs/1510.03055): different n-grams over all of them."""
        self._sort()
        return len(self.different) / self.count if self.count else 0.0

    def _sort(self) -> None:
        self.count += len(self.waiting)
        every = np.concatenate([self.different, np.frombuffer(self.waiting, dtype=np.int64)])
        self.different, self.waiting = every[:0], array("q")
        every.sort()
        is_new = np.ones(len(every), dtype=bool)
        np.not_equal(every[1:], every[:-1], out=is_new[1:])
        self.different = every[is_new]


def distinct(texts: Iterable[str], n: int) -> float:
    """Distinct-n of texts."""
    grams = Grams(n)
    for text in texts:
        grams.add(text.split())
    return grams.distinct()


def weighted(
    scores: Mapping[str, float | None], weights: Mapping[str, float], *, ignoring: bool = False
) -> float | None:
    """The weighted sum of a completion's scores by name, None where one of them is.

    With `ignoring`, that of the scores that there are, None where there are none.
    """
    parts = []
    for name, weight in weights.items():
        score = scores[name]
        if score is not None:
            parts.append(weight * score)
        elif not ignoring:
            return None
    return sum(parts) if parts else None


def similarity(texts: Sequence[str]) -> float | None:
    """Mean Jaccard similarity of the sets of word pairs of two of the texts: 1 when all say the same.

    None for fewer than two texts. A text of one word counts as that word.
    """
    sets = [_word_pairs(text) for text in texts]
    similarities = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in combinations(sets, 2)]
    return sum(similarities) / len(similarities) if similarities else None


def _word_pairs(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return set(pairwise(words)) or {(word,) for word in words}
