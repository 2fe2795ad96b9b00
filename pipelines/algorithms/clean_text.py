"""Clean text to train on: without examples that are there already, and without prompts that are held out for tests."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

SHINGLE = 5  # characters
NGRAM = 13  # words, as in Brown et al. 2020, https://arxiv.org/abs/2005.14165, appendix C
Duplicate = Literal["exact", "near"]


def fold(text: str) -> str:
    """The text without differences of case, width, accents' encoding and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def duplicates(examples: Sequence[tuple[str, str]], threshold: float | None = None) -> list[Duplicate | None]:
    """For each (prompt, completion) whether an earlier one, itself not a duplicate, is equal or nearly so.

    Near: the sets of 5-character shingles of the prompts and those of the completions, folded, both have a Jaccard
    similarity of at least `threshold` in (0, 1). A short answer to different questions is thus none. Candidates come
    from MinHash LSH (Broder 1997) over both sets together, whose similarity is at least the smaller of the two.
    """
    kinds: list[Duplicate | None] = []
    seen: set[tuple[str, str]] = set()
    for example in examples:
        kinds.append("exact" if example in seen else None)
        seen.add(example)
    if threshold is None or threshold >= 1:
        return kinds
    from datasketch import MinHash, MinHashLSH

    # below the threshold, so that the sketch's error leaves none out: every candidate is looked at
    index = MinHashLSH(threshold=0.8 * threshold, num_perm=128)
    for number, (prompt, completion) in enumerate(examples):
        if kinds[number]:
            continue
        prompt_shingles, completion_shingles = _shingles(prompt), _shingles(completion)
        sketch = MinHash(num_perm=128, seed=1)
        sketch.update_batch([b"p" + shingle.encode() for shingle in prompt_shingles])
        sketch.update_batch([b"c" + shingle.encode() for shingle in completion_shingles])
        for candidate in index.query(sketch):
            other_prompt, other_completion = examples[candidate]
            if (
                _jaccard(prompt_shingles, _shingles(other_prompt)) >= threshold
                and _jaccard(completion_shingles, _shingles(other_completion)) >= threshold
            ):
                kinds[number] = "near"
                break
        else:
            index.insert(number, sketch)
    return kinds


class HeldOut:
    """Prompts that must not be trained on: `text in held_out` says whether a text equals or quotes one of them.

    Equal is equal when folded. A quotation is 13 words in a row that both have, whatever the case and punctuation.
    """

    def __init__(self, prompts: Iterable[str]):
        self.whole: set[str] = set()
        self.grams: set[str] = set()
        for prompt in prompts:
            self.whole.add(fold(prompt))
            self.grams.update(_grams(prompt))

    def __contains__(self, prompt: str) -> bool:
        return fold(prompt) in self.whole or any(gram in self.grams for gram in _grams(prompt))


def _grams(text: str) -> list[str]:
    words = re.findall(r"\w+", fold(text))
    return [" ".join(words[start : start + NGRAM]) for start in range(len(words) - NGRAM + 1)]


def _shingles(text: str) -> set[str]:
    text = fold(text)
    return {text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1))}


def _jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)
