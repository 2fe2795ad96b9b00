"""What choosing among n samples of a prompt would give, estimated from K >= n of them: pure functions.

Every estimate is the mean over all sets of n of the K samples (for votes, over sets that are drawn), so it has the
expectation of a fresh draw of n samples and less noise than the first n would.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations

DRAWS = 200  # sets of a prompt's samples in which a vote is taken, where there are more of them


def passing(correct: Sequence[float], n: int) -> float:
    """pass@n: the chance that one of n samples is correct, 1 - C(K - c, n) / C(K, n).

    The unbiased estimator of Chen et al. 2021, https://arxiv.org/abs/2107.03374; correct is a score of at least 0.5.
    """
    wrong = sum(value < 0.5 for value in correct)
    return 1 - math.comb(wrong, n) / math.comb(len(correct), n)


def chosen(scores: Sequence[float], values: Sequence[float], n: int) -> float:
    """The mean value of the sample with the highest score among n, ties broken by chance.

    The i-th lowest of K scores is the highest of C(i - 1, n - 1) of the C(K, n) sets.
    """
    count = len(scores)
    order = sorted(range(count), key=scores.__getitem__)
    total, start = 0.0, 0
    while start < count:
        end = start + 1
        while end < count and scores[order[end]] == scores[order[start]]:
            end += 1
        tied = [values[place] for place in order[start:end]]
        sets = math.comb(end, n) - math.comb(start, n)  # whose highest score is this one
        total += sets * sum(tied) / len(tied)
        start = end
    return total / math.comb(count, n)


def voted(answers: Sequence[Hashable | None], values: Sequence[float], n: int, seed: str) -> float:
    """Maj@n: the mean value of the answer that most of n samples give, ties broken by chance; None is no vote.

    An answer's value is the mean over the samples that give it; where nobody votes it is 0. Over all sets of n, or
    DRAWS of them drawn with `seed`.
    """
    count = len(answers)
    given: dict[Hashable | None, list[float]] = {}
    for answer, value in zip(answers, values, strict=True):
        given.setdefault(answer, []).append(value)
    worth = {answer: sum(some) / len(some) for answer, some in given.items()}
    if math.comb(count, n) <= DRAWS:
        sets = list(combinations(range(count), n))
    else:
        chance = random.Random(seed)
        sets = [tuple(chance.sample(range(count), n)) for _ in range(DRAWS)]
    total = 0.0
    for members in sets:
        votes = Counter(answers[member] for member in members if answers[member] is not None)
        most = max(votes.values(), default=0)
        winners = [worth[answer] for answer, number in votes.items() if number == most]
        total += sum(winners) / len(winners) if winners else 0.0
    return total / len(sets)
