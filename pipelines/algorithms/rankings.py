"""What orders of some answers say of each, where only the best few of them are in order.

Of m answers the k best are named, best first: each of them is better than those named after it and than all that are
not named, which are k (k - 1) / 2 + k (m - k) comparisons.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def comparisons(order: Sequence[int], count: int) -> Iterator[tuple[int, int]]:
    """(better, worse) of every two of `count` answers that the order of the best tells apart."""
    unnamed = [place for place in range(count) if place not in order]
    for rank, better in enumerate(order):
        for worse in (*order[rank + 1 :], *unnamed):
            yield better, worse


def shares(orders: Iterable[Sequence[int]], ties: int, count: int) -> list[float | None]:
    """The share of its comparisons that each of `count` answers wins, over all orders and `ties` of all answers.

    A tie is half of each comparison. None for all where there is neither an order nor a tie.
    """
    won = [ties * (count - 1) / 2] * count
    met = [float(ties * (count - 1))] * count
    for order in orders:
        for better, worse in comparisons(order, count):
            won[better] += 1
            met[better] += 1
            met[worse] += 1
    return [wins / total if total else None for wins, total in zip(won, met, strict=True)]
