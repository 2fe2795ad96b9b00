"""Reward kind `dialogue_metric`: how good a set of replies is, by likeness to references and by diversity.

    rewards: {metric: {kind: dialogue_metric, column: reference, weight: 0}}

The evaluation metric of Moskovitz et al. 2023 (https://arxiv.org/abs/2310.04373), section 3: the mean of (SacreBLEU,
ROUGE-2, BLEU) and (unique-3, vocab-3, longest reply), each scaled to its `ranges`. It is of all completions of a call
together, every one of which gets the same number: to be watched (`weight: 0`), not trained on. Needs the extra
`metrics`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.rewards import text
from trimtab.rewards.meteor import words

LIKENESS = ("sacrebleu", "rouge_2", "bleu")
DIVERSITY = ("unique_3", "vocab_3", "longest")


@dataclass(kw_only=True)
class DialogueMetric:
    """`ranges` are [smallest, largest] of each part; what is not named is taken as it is."""

    column: str = "reference"
    ranges: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, pair in self.ranges.items():
            if name not in (*LIKENESS, *DIVERSITY):
                raise ValueError(
                    f"dialogue_metric: no part {name!r} (there are: {', '.join((*LIKENESS, *DIVERSITY))})"
                )
            if len(pair) != 2 or not pair[0] < pair[1]:
                raise ValueError(f"dialogue_metric: the range of {name} is [smallest, largest], got {pair}")

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float]:
        if not completions:
            return []
        if self.column not in columns:
            raise ValueError(f"dialogue_metric: the data has no column {self.column!r} (it has: {', '.join(columns)})")
        scored = parts([text(completion) for completion in completions], columns[self.column])
        scaled = {name: self._scaled(name, value) for name, value in scored.items()}
        groups = [sum(scaled[name] for name in group) / len(group) for group in (LIKENESS, DIVERSITY)]
        return [sum(groups) / 2] * len(completions)

    def _scaled(self, name: str, value: float) -> float:
        low, high = self.ranges.get(name, (0.0, 1.0))
        return (value - low) / (high - low)


def parts(replies: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Each part of the metric of a set of replies; likeness in [0, 1], diversity in counts for each reply.

    `unique_3` counts word triples that occur once, `vocab_3` different ones (both without punctuation), `longest` the
    words of the longest reply over those of the longest reference.
    """
    import sacrebleu
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu
    from rouge_score.rouge_scorer import RougeScorer

    rouge = RougeScorer(["rouge2"])
    triples: Counter[tuple[str, ...]] = Counter()
    longest = [0, 1]
    for reply, reference in zip(replies, references, strict=True):
        plain = [word for word in words(reply) if word.isalnum()]
        triples.update(zip(plain, plain[1:], plain[2:], strict=False))
        longest = [max(longest[0], len(plain)), max(longest[1], sum(word.isalnum() for word in words(reference)))]
    tokens, wanted = [words(reply) for reply in replies], [[words(reference)] for reference in references]
    smooth = SmoothingFunction().method1
    overlaps = [rouge.score(b, a)["rouge2"].fmeasure for a, b in zip(replies, references, strict=True)]
    return {
        "sacrebleu": sacrebleu.corpus_bleu(list(replies), [list(references)], force=True).score / 100,
        "rouge_2": sum(overlaps) / len(overlaps),
        "bleu": float(corpus_bleu(wanted, tokens, smoothing_function=smooth)),
        "unique_3": sum(count == 1 for count in triples.values()) / len(replies),
        "vocab_3": len(triples) / len(replies),
        "longest": longest[0] / longest[1],
    }
