"""Clean text to train on: without examples that are there already, and without prompts that are held out for tests."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from zlib import crc32

from trimtab import rewards

SHINGLE = 5  # characters
NGRAM = 13  # words, as in Brown et al. 2020, https://arxiv.org/abs/2005.14165, appendix C
Duplicate = Literal["exact", "near"]


def fold(text: str) -> str:
    """The text without differences of case, width, accents' encoding and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def duplicates(examples: Iterable[tuple[str, str]], threshold: float | None = None) -> list[Duplicate | None]:
    """For each (prompt, completion) whether an earlier one, itself not a duplicate, is equal or nearly so."""
    seen = Seen(threshold)
    return [seen.duplicate(example) for example in examples]


class Seen:
    """The examples so far, of which the next one may be a duplicate. Of exact ones a digest is kept, not the text.

    Near: the sets of 5-character shingles of the prompts and those of the completions, folded, both have a Jaccard
    similarity of at least `threshold` in (0, 1). A short answer to different questions is thus none. Candidates come
    from MinHash LSH (Broder 1997) over both sets together, whose similarity is at least the smaller of the two.
    """

    def __init__(self, threshold: float | None = None):
        self.digests: set[bytes] = set()
        self.near = _Near(threshold) if threshold is not None and threshold < 1 else None

    def duplicate(self, example: tuple[str, str]) -> Duplicate | None:
        """Whether an example is a duplicate; one that is none is kept in mind."""
        digest = hashlib.blake2b("\x1c".join(example).encode(errors="surrogatepass"), digest_size=16).digest()
        if digest in self.digests:
            return "exact"
        self.digests.add(digest)
        return "near" if self.near and self.near.duplicates(example) else None


class _Near:
    """Examples by their sketches; those that may be near are compared as they are."""

    def __init__(self, threshold: float):
        from datasketch import MinHash, MinHashLSH

        self.threshold = threshold
        # its constants are drawn once, and a shingle's checksum is hashed again by each of its permutations
        self.empty = MinHash(num_perm=128, seed=1, hashfunc=crc32)
        self.examples: list[tuple[str, str]] = []
        # below the threshold, so that the sketch's error leaves none out: every candidate is looked at
        self.index = MinHashLSH(threshold=0.8 * threshold, num_perm=128)

    def duplicates(self, example: tuple[str, str]) -> bool:
        """Whether one of the examples so far is near; if not, this one is kept too."""
        shingles = [_shingles(text) for text in example]
        sketch = self.empty.copy()
        for prefix, of_text in zip((b"p", b"c"), shingles, strict=True):
            sketch.update_batch([prefix + shingle.encode() for shingle in of_text])
        if any(self._is_near(shingles, self.examples[candidate]) for candidate in self.index.query(sketch)):
            return True
        self.index.insert(len(self.examples), sketch)
        self.examples.append(example)
        return False

    def _is_near(self, shingles: Sequence[set[str]], other: tuple[str, str]) -> bool:
        pairs = zip(shingles, other, strict=True)
        return all(_jaccard(of_text, _shingles(text)) >= self.threshold for of_text, text in pairs)


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


def asked(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """A prompt without its system messages, which different prompts have in common."""
    if isinstance(prompt, str):
        return prompt
    return rewards.text([dict(turn) for turn in prompt if turn.get("role") != "system"])
