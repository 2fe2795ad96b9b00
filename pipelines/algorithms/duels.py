"""Duels of answers, by pairs: who meets whom, and what comes of it for each. Pure functions.

The outcome of a duel is 1 where the first of the pair has won, 0.5 for a tie, 0 where it has lost, and None where
nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[int, int]
Outcomes = Sequence[float | None]


def circle(answers: Sequence[int], rounds: int | None = None) -> list[Pair]:
    """Every answer with the next `rounds` ones in a circle, or with all of them; no two meet twice."""
    count = len(answers)
    met: dict[frozenset[int], Pair] = {}
    for distance in range(1, min(rounds or count, count - 1) + 1):
        for place, answer in enumerate(answers):
            pair = (answer, answers[(place + distance) % count])
            met.setdefault(frozenset(pair), pair)
    return list(met.values())


def with_ties(pairs: Sequence[Pair], asked: Sequence[Pair], answered: Outcomes) -> list[float | None]:
    """The outcome of every pair, of which those that nobody was asked about are ties."""
    known = dict(zip(asked, answered, strict=True))
    return [known.get(pair, 0.5) for pair in pairs]


def shares(pairs: Sequence[Pair], outcomes: Outcomes, count: int, *, is_mutual: bool) -> list[float | None]:
    """The mean outcome of each of `count` answers, None for one without; `is_mutual` where both of a pair are such."""
    given: list[list[float]] = [[] for _ in range(count)]
    for (one, other), outcome in zip(pairs, outcomes, strict=True):
        if outcome is None:
            continue
        given[one].append(outcome)
        if is_mutual:
            given[other].append(1 - outcome)
    return [sum(some) / len(some) if some else None for some in given]


def summary(outcomes: Outcomes, gaps: Sequence[int]) -> dict[str, float]:
    """Shares of ties, of duels that were not judged, and of those between different lengths that the longer one wins.

    `gaps` are the first one's length minus the second one's.
    """
    judged = [outcome for outcome in outcomes if outcome is not None]
    numbers = {"unjudged": 1 - len(judged) / len(outcomes)}
    if judged:
        numbers["ties"] = judged.count(0.5) / len(judged)
    uneven = [(outcome, gap) for outcome, gap in zip(outcomes, gaps, strict=True) if outcome is not None and gap]
    if uneven:
        wins = [outcome if gap > 0 else 1 - outcome for outcome, gap in uneven]
        numbers["longer_wins"] = sum(wins) / len(wins)
    return numbers
