"""What a reward is worth on completions of one policy after another: pure functions of scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from trimtab.pipelines.algorithms import best_of, statistics

Sample = tuple[float, float, float]  # score, gold, length


def of_policy(
    scores: Sequence[float | None],
    lengths: Sequence[float],
    prompts: Sequence[int],
    gold: Sequence[float | None] | None = None,
) -> dict[str, Any]:
    """What a reward says of a policy's completions, each with its length and the number of its prompt.

    `mean` and `std` are of the scores, and `length` is the correlation of score and length, both less their means over
    the completions of the same prompt. With the scores of `gold`, `accuracy` is the share of pairs of a prompt's
    completions with different gold that the reward orders alike, a tie being one half. `best_of` has, for n = 1, 2, 4
    ... up to the most completions of a prompt, the mean `score` of the one among n that the reward likes best, and its
    mean `gold`; a prompt with fewer scored completions is no part of it. Errors are over prompts. A completion without
    a score, by the reward or by gold, is left out and counted in `unscored`.
    """
    groups: dict[int, list[Sample]] = defaultdict(list)
    truths: Sequence[float | None] = [0.0] * len(scores) if gold is None else gold
    for score, truth, length, prompt in zip(scores, truths, lengths, prompts, strict=True):
        if score is not None and truth is not None:
            groups[prompt].append((score, truth, length))
    samples = [sample for group in groups.values() for sample in group]
    numbers: dict[str, Any] = {"n": len(samples), "unscored": len(scores) - len(samples)}
    if not samples:
        return numbers
    given = np.array([score for score, _, _ in samples])
    numbers |= {"mean": float(given.mean()), "std": float(given.std()), "length": _correlation(groups.values())}
    if gold is not None:
        shares = [share for group in groups.values() if (share := _ordered_alike(group)) is not None]
        numbers["accuracy"] = _named(shares)
    numbers["best_of"] = list(_best_of(groups.values(), has_gold=gold is not None))
    return numbers


def _correlation(groups: Iterable[Sequence[Sample]]) -> float:
    """Pearson's, of scores and lengths less their means in each group; NaN where one of them is the same in all."""
    scores, lengths = [], []
    for group in groups:
        array = np.array(group)
        scores.append(array[:, 0] - array[:, 0].mean())
        lengths.append(array[:, 2] - array[:, 2].mean())
    score, length = np.concatenate(scores), np.concatenate(lengths)
    spread = float(np.sqrt((score @ score) * (length @ length)))
    return float(score @ length) / spread if spread > 1e-12 else float("nan")


def _ordered_alike(group: Sequence[Sample]) -> float | None:
    """The share of pairs with different gold that the reward orders as gold does; None where there are none."""
    points = []
    for (score, truth, _), (other, other_truth, _) in combinations(group, 2):
        if truth != other_truth:
            points.append(float(np.sign(score - other) * np.sign(truth - other_truth) + 1) / 2)
    return sum(points) / len(points) if points else None


def _best_of(groups: Iterable[Sequence[Sample]], *, has_gold: bool) -> Iterable[dict[str, Any]]:
    """A row for each n."""
    most = max(map(len, groups))
    whole = [tuple(zip(*group, strict=True)) for group in groups if len(group) == most]
    for n in (2**power for power in range(most.bit_length())):
        row = {"n": n, "score": _named([best_of.chosen(scores, scores, n) for scores, _, _ in whole])}
        if has_gold:
            row["gold"] = _named([best_of.chosen(scores, truths, n) for scores, truths, _ in whole])
        yield row


def _named(values: Sequence[float]) -> dict[str, float]:
    return dict(zip(("mean", "stderr"), statistics.mean_stderr(values), strict=True))
