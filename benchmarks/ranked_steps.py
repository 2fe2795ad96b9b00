"""Descent by ranks against random search at the same number of points asked about, on quadratics of 20 dimensions.

    python benchmarks/ranked_steps.py                  # half a minute on one core
    python benchmarks/ranked_steps.py asked=1600 seeds=50

f(x) = sum_i c_i x_i^2 from a normal start, with equal curvatures c or such that go from 1 to 100; with `noise`, the
ranks are those of f plus a normal error of that share of f at the start. Printed is f at the end over f at the start,
the mean over seeds with its standard error; 0 is the best. A round asks about m + 5 + 1 points: m to estimate a
direction from the order of the best k, five lengths of a step, and where it stands.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import numpy as np

from trimtab.pipelines.algorithms import ranked_steps
from trimtab.pipelines.algorithms.ranked_steps import Settings
from trimtab.pipelines.algorithms.statistics import mean_stderr

DIM, LINE = 20, 5
SIZES = ((5, 5), (10, 10), (10, 3), (20, 20))  # points of a round, and how many of them are in order


def left(settings: Settings, curvatures: np.ndarray, noise: float, asked: int, seed: int) -> float:
    """f at the end over f at the start."""
    rng = np.random.default_rng(seed)
    start = rng.standard_normal(DIM)
    first = float(curvatures @ start**2)

    def oracle(points: list[np.ndarray], count: int) -> list[int]:
        told = [curvatures @ point**2 + noise * first * rng.standard_normal() for point in points]
        return np.argsort(told, kind="stable")[:count].tolist()

    rounds = asked // (settings.points + settings.line + 1)
    *_, last = islice(ranked_steps.search(oracle, start, settings, rng), rounds)
    return float(curvatures @ last.x**2) / first


def main(asked: str = "640", seeds: str = "20") -> None:
    for name, curvatures in (("round", np.ones(DIM)), ("long", np.geomspace(1, 100, DIM))):
        for noise in (0.0, 0.05):
            print(f"\n{name} quadratic, noise {noise:g}, {asked} points, {seeds} seeds")
            for points, ranked in SIZES:
                line = f"    m = {points:>2}, k = {ranked:>2}"
                for method in ("ranks", "random"):
                    settings = Settings(points, ranked, 0.1, 2.0, LINE, method)
                    ends = [left(settings, curvatures, noise, int(asked), seed) for seed in range(int(seeds))]
                    mean, stderr = mean_stderr(ends)
                    line += f"    {method} {mean:.4f} ±{stderr:.4f}"
                print(line)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
