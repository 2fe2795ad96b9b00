"""Descent by ranks alone: a vector moves by which of several points are better, and no value of them is known.

ZO-RankSGD (arXiv 2303.03751). At x, m points x + mu xi_i with xi_i ~ N(0, I) are ranked, the k best of them in order.
Each comparison (better i, worse j) of the order is an edge, and

    g = 1 / |E| sum over edges (xi_j - xi_i) / mu,   |E| = k (k - 1) / 2 + k (m - k),

points from a better point to a worse one: for f(x) = c . x with |c| = 1 and k = m, E[c . g] mu = 2 / sqrt(pi). The
weight of a point with rank r (0 is the best) is 2 r - (m - 1), that of one without a rank k; they sum to 0. (The
released code has m - 2 r in the place of m - 1 - 2 r: its weights sum to k, which adds k times the mean of all xi.)

The next x is the best of x and of x - step 2^-j g / |g|, j = 0, ..., found by one more ranking. Where x itself is the
best, it stays, and the next estimate is averaged with those since x was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trimtab.pipelines.algorithms import rankings

Oracle = Callable[[Sequence[np.ndarray], int], Sequence[int]]  # (points, k) -> the k best places, best first


@dataclass(frozen=True)
class Settings:
    """`points` are ranked in a round, the `ranked` best in order, and then `line` steps with where it stands."""

    points: int = 8
    ranked: int = 8
    mu: float = 0.1
    step: float = 0.5
    line: int = 4
    method: Literal["ranks", "random"] = "ranks"


@dataclass(frozen=True)
class Round:
    """Where a search stands after a round, after how many points asked about, and whether it has moved."""

    x: np.ndarray
    asked: int
    moved: bool
    length: float  # of the step that was taken


def weights(order: Sequence[int], count: int) -> np.ndarray:
    """(count,): how often each point is worse than another one minus how often it is better, over all edges."""
    balance = np.zeros(count)
    for better, worse in rankings.comparisons(order, count):
        balance[better] -= 1
        balance[worse] += 1
    return balance


def estimate(directions: np.ndarray, order: Sequence[int], mu: float) -> np.ndarray:
    """The estimate g of a direction of ascent of f, (d,), from directions xi (m, d) and their order."""
    count = len(directions)
    edges = len(order) * (len(order) - 1) // 2 + len(order) * (count - len(order))
    return weights(order, count) @ directions / (edges * mu)


def search(oracle: Oracle, start: np.ndarray, settings: Settings, rng: np.random.Generator) -> Iterator[Round]:
    """Moves from `start` towards better points, round by round, without an end.

    `method: random` is the control of equal price: all points of a round but x lie in random directions around x, at
    the lengths of the line search, and the best of them and x is taken.
    """
    x, asked = start.copy(), 0
    estimates: list[np.ndarray] = []
    lengths = settings.step * 0.5 ** np.arange(settings.line)
    while True:
        if settings.method == "ranks":
            directions = rng.standard_normal((settings.points, len(x)))
            order = oracle([x + settings.mu * xi for xi in directions], settings.ranked)
            estimates.append(estimate(directions, order, settings.mu))
            ascent = np.mean(estimates, axis=0)
            unit = ascent / max(float(np.linalg.norm(ascent)), 1e-12)
            steps = [-length * unit for length in lengths]
        else:
            units = rng.standard_normal((settings.points + settings.line, len(x)))
            units /= np.linalg.norm(units, axis=1, keepdims=True)
            steps = list(units * np.resize(lengths, len(units))[:, None])
        best = oracle([x, *(x + move for move in steps)], 1)[0]
        asked += settings.points + settings.line + 1
        if best > 0:
            x = x + steps[best - 1]
            estimates = []
        yield Round(x, asked, best > 0, float(np.linalg.norm(steps[best - 1])) if best else 0.0)
