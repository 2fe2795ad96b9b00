"""The search for thresholds: where on the rewards is the metric that counts at its best?

Searches are generators: they yield a point, an array of one threshold for each reward, are sent the metric at that
point, and end when there is nothing more to ask. `Search` runs one step by step, and its state is what it was told: on
resumption the search is run again on that. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np

Asking = Generator[np.ndarray, float, None]


def nelder_mead(simplex: np.ndarray, tolerance: float = 0.0) -> Asking:
    """Maximises over points from a simplex (N + 1, N), with reflection 1, expansion 2, contraction and shrinkage 1/2.

    Moskovitz et al. 2023 (https://arxiv.org/abs/2310.04373), algorithm 3, with its signs turned to the metric's. Ends
    when the standard deviation of the simplex's values is below `tolerance`.
    """
    points = [np.asarray(point, float) for point in simplex]
    values: list[float] = []
    for point in points:
        values.append((yield point))  # noqa: PERF401 - no comprehension can yield
    while True:
        order = sorted(range(len(points)), key=lambda i: -values[i])
        points, values = [points[i] for i in order], [values[i] for i in order]
        if np.std(values) < tolerance:
            return
        centre, worst = np.mean(points[:-1], axis=0), points[-1]
        reflected = centre + (centre - worst)
        value = yield reflected
        if values[-2] < value <= values[0]:
            points[-1], values[-1] = reflected, value
        elif value > values[0]:
            expanded = centre + 2 * (reflected - centre)
            further = yield expanded
            points[-1], values[-1] = (expanded, further) if further > value else (reflected, value)
        else:
            contracted = centre + 0.5 * (worst - centre)
            nearer = yield contracted
            if nearer > values[-1]:
                points[-1], values[-1] = contracted, nearer
            else:
                for i in range(1, len(points)):
                    points[i] = points[0] + 0.5 * (points[i] - points[0])
                    values[i] = yield points[i]


def bayes(low: np.ndarray, high: np.ndarray, seed: int, initial: int = 4, candidates: int = 512) -> Asking:
    """Maximises a noisy metric over a box by expected improvement of a Gaussian process, after `initial` points.

    The improvement is over the best posterior mean among the points asked, since every value is noisy (Jones et al.
    1998; Letham et al. 2019, https://arxiv.org/abs/1706.07094). It never ends by itself.
    """
    from scipy.stats import norm, qmc

    size = len(low)
    grid = qmc.Sobol(size, seed=seed).random_base2(int(np.log2(candidates)))
    asked: list[np.ndarray] = []
    told: list[float] = []
    for point in grid[:initial]:
        asked.append(point)
        told.append((yield low + point * (high - low)))
    while True:
        process = fit(np.array(asked), np.array(told))
        best = process.predict(np.array(asked)).max()
        mean, deviation = process.predict(grid, return_std=True)
        z = (mean - best) / np.maximum(deviation, 1e-12)
        improvement = deviation * (z * norm.cdf(z) + norm.pdf(z))
        point = grid[int(np.argmax(improvement))]
        asked.append(point)
        told.append((yield low + point * (high - low)))


def fit(points: np.ndarray, values: np.ndarray) -> Any:
    """A Gaussian process of noisy `values` (n,) over `points` (n, N) that lie in about the unit box."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(
        length_scale=np.full(points.shape[1], 0.5), length_scale_bounds=(0.05, 5.0), nu=2.5
    ) + WhiteKernel(0.1, (1e-4, 1.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a parameter at its bound
        return process.fit(points, values)


class Search:
    """A search that can be asked, told, saved and found again.

    `point` is the one that is asked for, None when there is nothing more to ask. `cache` is the largest relative
    distance, in every coordinate, at which the value of an earlier point is taken again instead of being asked for;
    `stale_after` the age, in steps, from which it is not, since the metric at a point depends on the policy that came
    to it.
    """

    def __init__(self, asking: Callable[[], Asking], *, cache: float = 0.0, stale_after: float = float("inf")):
        self.asking, self.cache, self.stale_after = asking, cache, stale_after
        self.history: list[dict[str, Any]] = []  # {point, value, at, reused}, `at` being the step
        self._start()

    def _start(self) -> None:
        self.generator = self.asking()
        self.point: np.ndarray | None = next(self.generator)

    def tell(self, value: float, step: float) -> None:
        """The metric at `point`, at that step; and again of every next point that is near to one of before.

        After one more of those than there are thresholds the metric is asked for again: a small simplex whose values
        are all old ones would be turned for ever. Raises ValueError where there is nothing more to ask.
        """
        self._send(value, step, reused=False)
        for _ in range(len(self.history[-1]["point"]) + 1):
            if self.point is None or (earlier := self._near(self.point, step)) is None:
                return
            self._send(earlier, step, reused=True)

    def _send(self, value: float, step: float, *, reused: bool) -> None:
        if self.point is None:
            raise ValueError("the search has ended: it asks for no value")
        self.history.append({"point": self.point.tolist(), "value": value, "at": step, "reused": reused})
        try:
            self.point = self.generator.send(value)
        except StopIteration:
            self.point = None

    def _near(self, point: np.ndarray, step: float) -> float | None:
        for row in reversed(self.history):
            near = np.all(np.abs(point - np.array(row["point"])) <= self.cache * np.abs(np.array(row["point"])))
            if self.cache and near and not row["reused"] and step - row["at"] <= self.stale_after:
                return row["value"]
        return None

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the history with the highest value."""
        return max(self.history, key=lambda row: row["value"], default=None)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Runs the search again on what it was told."""
        self.history = []
        self._start()
        for row in saved["history"]:
            self._send(row["value"], row["at"], reused=row["reused"])


def simplex(low: np.ndarray, high: np.ndarray, seed: int) -> np.ndarray:
    """N + 1 random points between `low` (where the policy starts, so that they can be held) and `high`, (N,) each."""
    return low + np.random.default_rng(seed).random((len(low) + 1, len(low))) * (high - low)
