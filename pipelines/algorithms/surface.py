"""A metric as a function of several rewards, fitted to what training runs came by, and where it is largest.

Proxy points, Moskovitz et al. 2023 (https://arxiv.org/abs/2310.04373), section 3: rewards past which more of them
makes the metric worse. Found jointly, since rewards are correlated. This module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from trimtab.pipelines.algorithms import thresholds

GRID = 60  # points along each of one or two rewards
DRAWS = 200  # of the surface, for standard errors


@dataclass(frozen=True)
class Surface:
    """The fitted metric on `grid` (M, N), NaN where too few points were seen; its largest value and where that is.

    Standard errors are the spread over surfaces drawn from the posterior (of the process), or fitted to points drawn
    with replacement (of the polynomial).
    """

    grid: np.ndarray
    mean: np.ndarray
    best: np.ndarray
    best_stderr: np.ndarray
    value: float
    value_stderr: float
    explained: float  # share of the metric's variance over the points


def fit(
    points: np.ndarray,
    values: np.ndarray,
    *,
    kind: Literal["gaussian_process", "polynomial"] = "gaussian_process",
    degree: int = 10,
    density: float = 0.05,
    seed: int = 0,
) -> Surface:
    """The surface over points (n, N) with metrics `values` (n,).

    Only where the points' kernel density is above `density` times its largest value the surface counts. Raises
    ValueError for fewer than 3 points for each reward, or points that are all alike in one.
    """
    points, values = np.asarray(points, float), np.asarray(values, float)
    count, size = points.shape
    if count < 3 * size:
        raise ValueError(f"{count} points are too few for a surface over {size} rewards")
    low, high = points.min(0), points.max(0)
    if (high - low <= 0).any():
        raise ValueError("a reward is the same at all points: nothing is known of more or less of it")
    unit = (points - low) / (high - low)
    grid = _grid(unit, seed)
    seen = _density(unit, grid)
    counts = seen >= density * _density(unit, unit).max()
    grid = grid[counts]
    rng = np.random.default_rng(seed)
    if kind == "polynomial":
        mean, at_points = _polynomial(unit, values, degree, grid), _polynomial(unit, values, degree, unit)
        again = (rng.integers(count, size=count) for _ in range(DRAWS))
        draws = np.stack([_polynomial(unit[rows], values[rows], degree, grid) for rows in again])
    else:
        process = thresholds.fit(unit, values)
        (mean, covariance), at_points = process.predict(grid, return_cov=True), process.predict(unit)
        scales, axes = np.linalg.eigh(covariance)  # faster than `sample_y`, which decomposes by singular values
        normal = rng.standard_normal((DRAWS, len(scales)))
        draws = mean + normal * np.sqrt(scales.clip(min=0)) @ axes.T
    best = int(mean.argmax())
    peaks = grid[draws.argmax(1)] * (high - low)
    return Surface(
        grid=low + grid * (high - low),
        mean=mean,
        best=low + grid[best] * (high - low),
        best_stderr=peaks.std(0),
        value=float(mean[best]),
        value_stderr=float(draws[:, best].std()),
        explained=float(1 - np.square(values - at_points).mean() / max(values.var(), 1e-300)),
    )


def _grid(unit: np.ndarray, seed: int) -> np.ndarray:
    """Points of the unit box: a lattice for one or two rewards, a low-discrepancy sequence and the points for more."""
    size = unit.shape[1]
    if size <= 2:
        return np.array(list(product(np.linspace(0, 1, GRID if size == 2 else 10 * GRID), repeat=size)))
    from scipy.stats import qmc

    return np.concatenate([qmc.Sobol(size, seed=seed).random_base2(11), unit])


def _density(unit: np.ndarray, at: np.ndarray) -> np.ndarray:
    from scipy.stats import gaussian_kde

    jitter = 1e-6 * np.random.default_rng(0).standard_normal(unit.shape)  # points on a line have no density
    return gaussian_kde((unit + jitter).T)(at.T)


def _polynomial(unit: np.ndarray, values: np.ndarray, degree: int, at: np.ndarray) -> np.ndarray:
    """Least squares of the smallest norm over all monomials up to `degree`, in Chebyshev's form."""

    def features(points: np.ndarray) -> np.ndarray:
        powers = [np.polynomial.chebyshev.chebvander(2 * column - 1, degree) for column in points.T]
        exponents = (e for e in product(range(degree + 1), repeat=points.shape[1]) if sum(e) <= degree)
        return np.stack([np.prod([p[:, i] for p, i in zip(powers, e, strict=True)], axis=0) for e in exponents], 1)

    return features(at) @ np.linalg.lstsq(features(unit), values, rcond=1e-6)[0]
