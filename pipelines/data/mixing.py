"""How many rows of each dataset make up a mixture, and which: exact counts, drawn by a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset


def drawn(rows: Dataset, count: int | None, seed: str) -> Dataset:
    """`count` rows in their order, or all where there are no more."""
    if count is None or count >= len(rows):
        return rows
    return rows.select(sorted(random.Random(seed).sample(range(len(rows)), count)))


def mixed(parts: Sequence[Dataset], weights: Sequence[float] | None, total: int | None, seed: int) -> list[Dataset]:
    """The rows that a mixture takes of each dataset, as many as its weight says of `total`.

    Without a total it is the largest mixture that repeats no row, and without weights each dataset counts by its size.
    A dataset that is too small for a total comes whole, as often as it has to, and a last time in part.
    """
    sizes = [len(rows) for rows in parts]
    if weights is None:
        weights, total = sizes, min(total or sum(sizes), sum(sizes))
    shares = [weight / sum(weights) for weight in weights]
    if total is None:
        total = int(min(size / share for size, share in zip(sizes, shares, strict=True)))
    counts = apportioned(shares, total)
    return [
        _repeated(rows, count, f"{seed}-{place}")
        for place, (rows, count) in enumerate(zip(parts, counts, strict=True))
    ]


def apportioned(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers that add up to `total`, each less than 1 from its share: the largest remainders are rounded up."""
    counts = [int(share * total) for share in shares]
    remainders = [share * total - count for share, count in zip(shares, counts, strict=True)]
    largest = sorted(range(len(shares)), key=lambda place: (-remainders[place], place))
    for place in largest[: total - sum(counts)]:
        counts[place] += 1
    return counts


def _repeated(rows: Dataset, count: int, seed: str) -> Dataset:
    whole, rest = divmod(count, len(rows)) if len(rows) else (0, 0)
    if whole == 0:
        return rows.select([]) if count == 0 else drawn(rows, count, seed)
    last = sorted(random.Random(seed).sample(range(len(rows)), rest))
    return rows if whole == 1 and not rest else rows.select([*range(len(rows))] * whole + last)
