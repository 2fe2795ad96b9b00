"""Which pairs of answers are worth a label: the Laplace posterior of a Bradley-Terry head, and disagreement.

A head scores an answer with features phi (d,) as theta . phi, and the first of two is preferred with probability
sigmoid(theta . x), x = phi_0 - phi_1 (d,). Around its most probable theta the posterior is normal with covariance
H^-1, H = ridge I + sum p (1 - p) x x^T over labelled pairs; ||x||_H^-1 is the standard deviation of a pair's gap in
logits, and s (2 / sqrt(pi)) ||x||_H^-1 is by how much the gaps of two draws with scale s differ on average
(randomised queries: Wu and Sun 2024, arXiv 2310.14554).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

STEPS, CLOSE = 50, 1e-8  # of Newton's method, and the largest change with which it ends


class Posterior:
    """The posterior of a head with `dim` weights, before any label normal with variance 1 / ridge."""

    def __init__(self, dim: int, ridge: float = 1.0):
        self.ridge = ridge
        self.mean: np.ndarray = np.zeros(dim)
        self.covariance: np.ndarray = np.eye(dim) / ridge
        self.log_det = dim * math.log(ridge)  # of H

    def fit(self, gaps: np.ndarray, labels: np.ndarray) -> None:
        """Begins again with labelled pairs: gaps x (n, d), labels 1 where the first answer is better, else 0."""
        theta = np.zeros_like(self.mean)
        hessian = self.ridge * np.eye(len(theta))
        for _ in range(STEPS):
            likely = _sigmoid(gaps @ theta)
            hessian = self.ridge * np.eye(len(theta)) + (gaps.T * (likely * (1 - likely))) @ gaps
            change = np.linalg.solve(hessian, gaps.T @ (labels - likely) - self.ridge * theta)
            theta = theta + change * min(1.0, 5.0 / max(5.0, float(np.abs(gaps @ change).max(initial=0.0))))
            if np.abs(change).max() < CLOSE:
                break
        self.mean, self.covariance = theta, np.linalg.inv(hessian)
        self.log_det = float(np.linalg.slogdet(hessian)[1])

    def spread(self, gaps: np.ndarray) -> np.ndarray:
        """||x||_H^-1 of pairs (n, d): (n,)."""
        return np.sqrt(np.einsum("nd,de,ne->n", gaps, self.covariance, gaps))

    def weight(self, gap: np.ndarray) -> float:
        """p (1 - p) of a pair: what a label of it will add to H, whatever it says."""
        likely = float(_sigmoid(gap @ self.mean))
        return likely * (1 - likely)

    def expect(self, gap: np.ndarray, weight: float = 1.0) -> np.ndarray:
        """Adds weight x x^T to H by a rank-1 update of its inverse; returns H^-1 x as it was before."""
        leaning = self.covariance @ gap
        grown = 1 + weight * float(gap @ leaning)
        self.covariance -= (weight / grown) * np.outer(leaning, leaning)
        self.log_det += math.log(grown)
        return leaning

    def draw(self, rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
        """One theta of the posterior with `scale` times its standard deviation."""
        symmetric = (self.covariance + self.covariance.T) / 2
        return rng.multivariate_normal(self.mean, scale**2 * symmetric, method="cholesky")


def mean_difference(spread: float, scale: float = 1.0) -> float:
    """E |x . (theta - theta')| of two draws with `scale`, of a pair with that ||x||_H^-1."""
    return 2 * scale / math.sqrt(math.pi) * spread


def above(posterior: Posterior, gaps: np.ndarray, least: float, budget: int, weight: float | None = None) -> list[int]:
    """The pairs whose ||x||_H^-1 is above `least` when they come, in their order, `budget` of them at most.

    Each that is taken is added to H with `weight`, by default p (1 - p), so that those like it are not taken after it.
    """
    taken: list[int] = []
    for number, gap in enumerate(gaps):
        if len(taken) == budget:
            break
        if float(posterior.spread(gap[None])[0]) > least:
            posterior.expect(gap, posterior.weight(gap) if weight is None else weight)
            taken.append(number)
    return taken


def most(log_det_before: float, log_det_after: float, least: float, weight: float = 1.0) -> float:
    """No more than so many pairs of constant weight can have been above `least`.

    Each multiplies det H by 1 + weight ||x||^2 (elliptical potential); with weight 1 it is below the better known
    2 log(det after / det before) / min(1, least^2).
    """
    return (log_det_after - log_det_before) / math.log1p(weight * least**2)


def widest(posterior: Posterior, gaps: np.ndarray, budget: int) -> list[int]:
    """`budget` pairs, each the one with the largest ||x||_H^-1 after those before it; O(pairs x d) each."""
    squares = posterior.spread(gaps) ** 2
    taken: list[int] = []
    for _ in range(min(budget, len(gaps))):
        number = int(squares.argmax())
        weight = posterior.weight(gaps[number])
        leaning = posterior.expect(gaps[number], weight)
        squares = squares - weight * (gaps @ leaning) ** 2 / (1 + weight * float(gaps[number] @ leaning))
        squares[[*taken, number]] = -np.inf
        taken.append(number)
    return taken


def disagreement(gaps: Sequence[float]) -> float:
    """The mean of |g_m - g_m'| over pairs of members, each of which has a gap for the pair of answers."""
    differences = [abs(one - other) for one, other in combinations(gaps, 2)]
    return sum(differences) / len(differences)


def contenders(scores: np.ndarray, others: np.ndarray) -> tuple[int, int]:
    """(the best answer by one draw's scores, the best other one by another's)."""
    first = int(scores.argmax())
    ranked: Iterator[int] = (int(place) for place in np.argsort(-others, kind="stable"))
    return first, next(place for place in ranked if place != first)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
