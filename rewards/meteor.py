"""Reward kind `meteor`: METEOR of a completion against the reference in a column, by exact words and stems.

    rewards: {meteor: {kind: meteor, column: reference}}

nltk's, without its synonyms, which need WordNet: numbers are a little below those of the full metric. Needs the extra
`metrics`.
"""

from dataclasses import dataclass
from typing import Any

from trimtab.rewards import text


class _NoSynonyms:
    """In the place of WordNet."""

    @staticmethod
    def synsets(word: str) -> list:
        return []


@dataclass(kw_only=True)
class Meteor:
    """In [0, 1]. A prompt without a reference gets no score."""

    column: str = "reference"

    def __post_init__(self) -> None:
        self._stemmer: Any = None

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        from nltk.stem.porter import PorterStemmer
        from nltk.translate.meteor_score import single_meteor_score

        if not completions:
            return []
        if self.column not in columns:
            raise ValueError(f"meteor: the data has no column {self.column!r} (it has: {', '.join(columns)})")
        self._stemmer = self._stemmer or PorterStemmer()
        scores: list[float | None] = []
        for completion, reference in zip(completions, columns[self.column], strict=True):
            pair = words(reference or ""), words(text(completion))
            score = single_meteor_score(*pair, stemmer=self._stemmer, wordnet=_NoSynonyms) if reference else None
            scores.append(score)
        return scores


def words(sentence: str) -> list[str]:
    """Words and punctuation marks, in lower case."""
    from nltk.tokenize import wordpunct_tokenize

    return wordpunct_tokenize(sentence.lower())
