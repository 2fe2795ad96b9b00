"""A metric as a function of several rewards, fitted to what training runs came by, and where it is largest.

Proxy points, Moskovitz et al. 2023 (https://arxiv.org/abs/2310.04373), section 3: rewards past which more of them
makes the metric worse. They are fitted jointly, since rewards are correlated. This module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import numpy as np

from trimtab.pipelines.algorithms import thresholds

GRID = 60  # points along each of one or two rewards
DRAWS = 200  # of the surface, for standard errors
LEAST = 3  # points for each reward


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
    if count < LEAST * size:
        raise ValueError(f"{count} points are too few for a surface over {size} rewards")
    low, high = points.min(0), points.max(0)
    if (high - low <= 0).any():
        raise ValueError("a reward is the same at all points: nothing is known of more or less of it")
    unit = (points - low) / (high - low)
    grid = _grid(unit, seed)
    grid = grid[_density(unit, grid) >= density * _density(unit, unit).max()]
    rng = np.random.default_rng(seed)
    if kind == "polynomial":
        fitted = _polynomial(unit, values, degree, grid, rng)
    else:
        fitted = _gaussian_process(unit, values, grid, rng)
    best = int(fitted.mean.argmax())
    peaks = grid[fitted.draws.argmax(1)] * (high - low)
    return Surface(
        grid=low + grid * (high - low),
        mean=fitted.mean,
        best=low + grid[best] * (high - low),
        best_stderr=peaks.std(0),
        value=float(fitted.mean[best]),
        value_stderr=float(fitted.draws[:, best].std()),
        explained=float(1 - np.square(values - fitted.at_points).mean() / max(values.var(), 1e-300)),
    )


class _Fitted(NamedTuple):
    """A fit: its mean on the grid (M,) and at the points (n,), and surfaces on the grid as likely as it (DRAWS, M)."""

    mean: np.ndarray
    at_points: np.ndarray
    draws: np.ndarray


def _gaussian_process(unit: np.ndarray, values: np.ndarray, grid: np.ndarray, rng: np.random.Generator) -> _Fitted:
    """Surfaces are drawn from the posterior."""
    process = thresholds.fit(unit, values)
    mean, covariance = process.predict(grid, return_cov=True)
    scales, axes = np.linalg.eigh(covariance)  # faster than `sample_y`, which decomposes by singular values
    normal = rng.standard_normal((DRAWS, len(scales)))
    draws = mean + normal * np.sqrt(scales.clip(min=0)) @ axes.T
    return _Fitted(mean, process.predict(unit), draws)


def _polynomial(
    unit: np.ndarray, values: np.ndarray, degree: int, grid: np.ndarray, rng: np.random.Generator
) -> _Fitted:
    """Least squares of the smallest norm over all monomials up to `degree`, and the same of points drawn anew."""
    on_grid, at_points = _monomials(grid, degree), _monomials(unit, degree)

    def coefficients(rows: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(_monomials(unit[rows], degree), values[rows], rcond=1e-6)[0]

    fitted = coefficients(np.arange(len(unit)))
    resampled = (rng.integers(len(unit), size=len(unit)) for _ in range(DRAWS))
    draws = np.stack([on_grid @ coefficients(rows) for rows in resampled])
    return _Fitted(on_grid @ fitted, at_points @ fitted, draws)


def _monomials(points: np.ndarray, degree: int) -> np.ndarray:
    """The features (n, terms) of points (n, N) in the unit box: products of Chebyshev polynomials up to `degree`."""
    powers = [np.polynomial.chebyshev.chebvander(2 * column - 1, degree) for column in points.T]
    exponents = (e for e in product(range(degree + 1), repeat=points.shape[1]) if sum(e) <= degree)
    features = [np.prod([p[:, i] for p, i in zip(powers, e, strict=True)], axis=0) for e in exponents]
    return np.stack(features, 1)


def _grid(unit: np.ndarray, seed: int) -> np.ndarray:
    """Points of the unit box: a lattice for one or two rewards, a low-discrepancy sequence and the points for more."""
    size = unit.shape[1]
    if size <= 2:
        return np.array(list(product(np.linspace(0, 1, GRID if size == 2 else 10 * GRID), repeat=size)))
    from scipy.stats import qmc

    return np.concatenate([qmc.Sobol(size, seed=seed).random_base2(11), unit])


def _density(unit: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The kernel density of the points `unit` (n, N) at `places` (M, N)."""
    from scipy.stats import gaussian_kde

    jitter = 1e-6 * np.random.default_rng(0).standard_normal(unit.shape)  # points on a line have no density
    return gaussian_kde((unit + jitter).T)(places.T)
