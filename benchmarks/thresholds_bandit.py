"""The search for thresholds on the twelve-armed bandit: Nelder-Mead and Bayes against a grid, by trainings they need.

    python benchmarks/thresholds_bandit.py                  # a few minutes on one core; save=yes keeps the numbers
    python benchmarks/thresholds_bandit.py instances=50 noise=0.02

A point of two thresholds is tried by a whole training: the project's multipliers hold the exact policy there
(`equal`), and the gold reward of that policy is what is searched for, with `noise` (a standard deviation, in units of
the gold reward's range over the box) added to what the search is told. The searches begin in a box from where the
policy starts to a guess beyond the optimum; a grid has the same box. Told is, for every budget of trainings, how
far the gold reward of the best point (by what was told) is from the optimum, in shares of the range; means over
instances with standard errors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import numpy as np
import stored_numbers

from trimtab.pipelines.algorithms import tabular, thresholds
from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers, MultiplierSettings

ANSWERS, STEPS, BUDGETS = 12, 1500, (9, 16, 25, 49, 81)
PEAK = np.array([0.8, 0.4])  # the multipliers at whose policy the gold reward is best


class Bandit:
    """Rewards, where the policy starts, a box, and the gold reward of the policy held at two thresholds."""

    def __init__(self, seed: int):
        rng = np.random.default_rng(seed)
        self.reference, self.rewards = np.log(rng.dirichlet(np.full(ANSWERS, 2.0))), rng.random((2, ANSWERS))
        self.low = self.rewards @ np.exp(self.reference)
        self.peak = self.rewards @ np.exp(tabular.tilted(self.reference, self.rewards, PEAK))
        self.high = self.low + 2.5 * (self.peak - self.low)
        corners = np.array(list(product(*zip(self.low, self.high, strict=True))))
        self.range = float(np.square(corners - self.peak).sum(1).max())

    def gold(self, point: np.ndarray) -> float:
        """In shares of the range, 0 at the optimum."""
        settings = MultiplierSettings(parametrization="softplus", learning_rate=2.0, max_grad_norm=100, momentum=0.5)
        held = dict(zip("ab", point, strict=True))
        multipliers = Multipliers({name: Constraint(value, "equal") for name, value in held.items()}, settings)
        table = dict(zip("ab", self.rewards, strict=True))
        policy = np.exp(tabular.primal_dual(self.reference, table, multipliers, STEPS, 0.5))
        return -float(np.square(self.rewards @ policy - self.peak).sum()) / self.range


def main(instances: str = "20", noise: str = "0.02", save: str = "no") -> None:
    missed: dict[str, list[list[float]]] = {name: [] for name in ("grid", "Nelder-Mead", "Bayes")}
    for seed in range(int(instances)):
        bandit, rng = Bandit(seed), np.random.default_rng(seed)

        def ask(point: np.ndarray, bandit=bandit, rng=rng) -> tuple[float, float]:
            truth = bandit.gold(point)
            return truth, truth + float(noise) * rng.standard_normal()

        missed["grid"].append([best(grid(bandit, int(budget**0.5)), ask, budget) for budget in BUDGETS])
        simplex = thresholds.simplex(bandit.low, bandit.high, seed)
        missed["Nelder-Mead"].append([best(thresholds.nelder_mead(simplex), ask, budget) for budget in BUDGETS])
        missed["Bayes"].append([best(thresholds.bayes(bandit.low, bandit.high, seed), ask, budget)
                               for budget in BUDGETS[:3]])  # fmt: skip
    rows = []
    for name, values in missed.items():
        columns = [[-value for value in column] for column in zip(*values, strict=True)]
        rows.append({"trainings": name, **dict(zip(map(str, BUDGETS), [*columns, "", ""], strict=False))})
    stored_numbers.show("threshold-search", {"missed": rows}, seeds=f"{instances} bandits, noise {noise}")


def grid(bandit: Bandit, size: int) -> Iterator[np.ndarray]:
    axes = [np.linspace(low, high, size) for low, high in zip(bandit.low, bandit.high, strict=True)]
    yield from (np.array(point) for point in product(*axes))


def best(asking: Iterator[np.ndarray], ask: Callable, budget: int) -> float:
    """The true value of the point that looked best within the budget."""
    point, rows = next(asking), []
    while True:
        rows.append((point, *ask(point)))
        if len(rows) == budget:
            return max(rows, key=lambda row: row[2])[1]
        try:
            point = asking.send(rows[-1][2]) if hasattr(asking, "send") else next(asking)
        except StopIteration:
            return max(rows, key=lambda row: row[2])[1]


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
