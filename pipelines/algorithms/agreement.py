"""How far raters agree beyond chance, on categories that have no order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

Ratings = Mapping[str, Mapping[str, Hashable]]  # rater -> question -> category


def krippendorff(ratings: Ratings) -> float | None:
    """Krippendorff's nominal alpha, 1 - observed / expected disagreement, with any number of raters and gaps.

    1 is perfect agreement and 0 chance. None where no question has two ratings, or all ratings are one category, of
    which no agreement beyond chance can be seen (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability").
    """
    units: dict[str, list[Hashable]] = {}
    for given in ratings.values():
        for question, category in given.items():
            units.setdefault(question, []).append(category)
    rated = [unit for unit in units.values() if len(unit) > 1]
    totals = Counter(category for unit in rated for category in unit)
    count = totals.total()
    if len(totals) < 2:
        return None
    observed = sum(_disagreeing(Counter(unit)) / (len(unit) - 1) for unit in rated) / count
    return 1 - observed / (_disagreeing(totals) / (count * (count - 1)))


def cohen(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Cohen's kappa of two raters of the same questions, (agreement - chance) / (1 - chance).

    None where chance alone makes them agree, as where both have one category only (Cohen 1960).
    """
    count = len(first)
    if not count:
        return None
    ours, theirs = Counter(first), Counter(second)
    chance = sum(ours[category] * theirs[category] for category in ours) / count**2
    agreed = sum(one == other for one, other in zip(first, second, strict=True)) / count
    return None if chance == 1 else (agreed - chance) / (1 - chance)


def mean_cohen(ratings: Ratings) -> float | None:
    """Cohen's kappa of every two raters, the mean weighted by the questions that both have rated."""
    kappas, weights = [], []
    for one, other in combinations(ratings.values(), 2):
        both = [question for question in one if question in other]
        kappa = cohen([one[question] for question in both], [other[question] for question in both])
        if kappa is not None:
            kappas.append(kappa * len(both))
            weights.append(len(both))
    return sum(kappas) / sum(weights) if weights else None


def _disagreeing(counts: Counter[Hashable]) -> int:
    """The ordered pairs of values that differ."""
    return counts.total() ** 2 - sum(number**2 for number in counts.values())
