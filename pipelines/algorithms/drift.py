"""How far a policy has come from the first round of a loop: win rates, diversity, and what the theory had promised."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import chain

from trimtab.pipelines.algorithms import curation, statistics

OF_FIRST = ("length", "distinct_2")  # limits of a loop that are multiples of the first round's
Score = float | None  # None where a reward has abstained


def win_shares(
    prompts: Sequence[str], scores: Sequence[Score], first_prompts: Sequence[str], first_scores: Sequence[Score]
) -> list[float | None]:
    """For each completion the share of the first round's that it beats (a tie is half), None without a score.

    They are those of its own prompt where the first round has all of the prompts, and all of the first round where
    the two have different ones.
    """
    rivals: dict[str, list[float]] = {}
    for prompt, score in zip(first_prompts, first_scores, strict=True):
        of_prompt = rivals.setdefault(prompt, [])
        if score is not None:
            of_prompt.append(score)
    if not rivals.keys() >= set(prompts):
        prompts, rivals = [""] * len(prompts), {"": list(chain.from_iterable(rivals.values()))}
    ordered = {prompt: sorted(of_prompt) for prompt, of_prompt in rivals.items()}
    shares: list[float | None] = []
    for prompt, score in zip(prompts, scores, strict=True):
        others = ordered[prompt]
        if score is None or not others:
            shares.append(None)
        else:
            shares.append((bisect_left(others, score) + bisect_right(others, score)) / (2 * len(others)))
    return shares


def diversity(texts: Sequence[str], prompts: Sequence[int], first_texts: Sequence[str] | None) -> dict[str, float]:
    """Of completions, each with the number of its prompt: `distinct_2`, `similarity`, and what is left of the first.

    `similarity` is missing where no prompt has two completions. With the first round's texts, `distinct_2/ratio` is
    relative to theirs and `vocabulary` is the share of their words that are still said.
    """
    groups: dict[int, list[str]] = {}
    for prompt, completion in zip(prompts, texts, strict=True):
        groups.setdefault(prompt, []).append(completion)
    numbers = {"distinct_2": statistics.distinct(texts, 2)}
    similarities = [value for value in map(statistics.similarity, groups.values()) if value is not None]
    if similarities:
        numbers["similarity"] = sum(similarities) / len(similarities)
    if first_texts is not None:
        numbers["distinct_2/ratio"] = numbers["distinct_2"] / max(1e-9, statistics.distinct(first_texts, 2))
        words, first_words = (set(" ".join(completions).split()) for completions in (texts, first_texts))
        numbers["vocabulary"] = len(words & first_words) / max(1, len(first_words))
    return numbers


def promised(
    scores: Sequence[Sequence[float]], before: Sequence[Sequence[float]] | None, temperature: float, ratio: float
) -> dict[str, float]:
    """What the theory of curated retraining says of a round, from the scores of each prompt's completions.

    `ratio` is lambda, synthetic to real rows. `before` are the scores that the promise is made from: those of the
    round before without real data (S1), of the first round with it (S3).
    """
    numbers = {"exp_reward/log": curation.log_exp_reward(scores, temperature)[0]}
    bound = curation.divergence_bound(max(map(len, scores)), ratio)
    if math.isfinite(bound):
        numbers["kl_bound"] = bound
    if before is not None:
        numbers["exp_reward/log_promised"] = curation.log_exp_reward(before, temperature, ratio)[1]
    return numbers
