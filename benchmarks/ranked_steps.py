"""Descent by ranks against random search at the same number of points asked about, on quadratics of 20 dimensions.

    python benchmarks/ranked_steps.py                  # half a minute on one core; save=yes keeps the numbers
    python benchmarks/ranked_steps.py asked=1600 seeds=50

f(x) = sum_i c_i x_i^2 from a normal start, with equal curvatures c or such that go from 1 to 100; with `noise`, the
ranks are those of f plus a normal error of that share of f at the start. Told is f at the end over f at the start,
the mean over seeds with its standard error; 0 is the best. A round asks about m + 5 + 1 points: m to estimate a
direction from the order of the best k, five lengths of a step, and where it stands.
"""

from __future__ import annotations

import sys
from itertools import islice, product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import numpy as np
import stored_numbers

from trimtab.pipelines.algorithms import ranked_steps
from trimtab.pipelines.algorithms.ranked_steps import Settings

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


def main(asked: str = "640", seeds: str = "20", save: str = "no") -> None:
    rows = []
    for name, curvatures in (("equal", np.ones(DIM)), ("1 to 100", np.geomspace(1, 100, DIM))):
        for noise, (points, ranked) in product((0.0, 0.05), SIZES):
            row: dict[str, Any] = {"curvatures": name, "noise": f"{noise:g}", "m, k": f"{points}, {ranked}"}
            for method in ("ranks", "random"):
                settings = Settings(points, ranked, 0.1, 2.0, LINE, method)
                row[method] = [left(settings, curvatures, noise, int(asked), seed) for seed in range(int(seeds))]
            rows.append(row)
    stored_numbers.show("rank-search", {"left": rows}, seeds=f"{seeds}, {asked} points each")


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
