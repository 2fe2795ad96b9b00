"""Is one threshold good for many reward models where one weight is not? Bandits with reward models of different scale.

    python benchmarks/constrained_scales.py                    # minutes on one core; save=yes keeps the numbers
    python benchmarks/constrained_scales.py repeats=10 tuned_on=5 worlds=30 steps=150 strength=0.1,0.01

A world has 200 answers, a start policy, and two reward models: two correlated qualities of an answer, standardised
under the start policy, each multiplied by 1/3, 1 or 3 (or all by 1) and shifted. The true reward falls with the
squared distance of both qualities from 2: the start is two standard deviations below the optimum, and more is too
much. The policy goes up the exact natural gradient of what an arm maximises, with a KL to the start of `strength`:

    weight            the sum of the reward models' scores, times one weight
    calibrated weight the same of calibrated scores (`normalize: true`): mean 0 and deviation 1 on the start's answers
    xi, z             both calibrated scores held at one threshold z (`method: xi`, `parametrization: projected`)
    xi, proxy points  each held at what it was where the true reward was best in a run of that world without thresholds
    best weight here  the calibrated weight that is best in each world: no arm, but what tuning in every world comes to

The weight, or z, is the one that is best on `tuned_on` worlds after `steps` steps and is read on `worlds` others, then
and after three times the steps; all of it `repeats` times. Errors are over repeats, so that those of tuning are in.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import numpy as np
import stored_numbers

from trimtab.pipelines.algorithms import tabular
from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers, MultiplierSettings

ANSWERS, OPTIMUM, RATE = 200, 2.0, 0.05
SCALES = (1 / 3, 1.0, 3.0)
WEIGHTS = tuple(0.02 * 1.5**power for power in range(12))
POINTS = tuple(0.25 * step for step in range(1, 13))
HELD = MultiplierSettings(parametrization="projected", learning_rate=0.05, momentum=0.0, max_grad_norm=10.0)
SAID = {
    "start": "the start",
    "weight": "one weight of the scores",
    "calibrated weight": "one weight of calibrated scores",
    "xi, z": "`xi` at one z",
    "xi, proxy points": "`xi` at the proxy points of a run of that world",
    "best weight here": "the best calibrated weight of every world, which no arm knows",
}
COMPARED = (("xi, z", "weight"), ("xi, z", "calibrated weight"), ("xi, proxy points", "xi, z"))


@dataclass(frozen=True)
class World:
    """Log-probabilities (n,) of the start, scores (2, n) as they are given and calibrated, and the true reward."""

    start: np.ndarray
    scores: np.ndarray
    calibrated: np.ndarray
    truth: np.ndarray
    strength: float

    @classmethod
    def of(cls, seed: int, strength: float, *, scaled: bool) -> World:
        rng = np.random.default_rng(seed)
        start = np.log(rng.dirichlet(np.full(ANSWERS, 5.0)))
        correlation = rng.uniform(-0.5, 0.5)
        first, second = rng.standard_normal((2, ANSWERS))
        qualities = np.stack([first, correlation * first + np.sqrt(1 - correlation**2) * second])
        policy = np.exp(start)
        qualities -= (qualities @ policy)[:, None]
        qualities /= np.sqrt(np.square(qualities) @ policy)[:, None]
        scale, shift = rng.choice(SCALES if scaled else (1.0,), (2, 1)), rng.standard_normal((2, 1))
        return cls(start, scale * qualities + shift, qualities, -np.square(qualities - OPTIMUM).sum(0), strength)

    def weighted(self, scores: np.ndarray, weight: float, steps: int) -> np.ndarray:
        """The true reward after each step of a policy that maximises the weighted sum."""
        log_policy, values = self.start, []
        for _ in range(steps):
            gained = weight * scores.sum(0) + self.strength * (self.start - log_policy)
            log_policy = tabular.normalise(log_policy + RATE * gained)
            values.append(float(np.exp(log_policy) @ self.truth))
        return np.array(values)

    def held(self, thresholds: np.ndarray, steps: int) -> np.ndarray:
        """The same of a policy whose calibrated scores are held at thresholds."""
        names = dict(zip("ab", self.calibrated, strict=True))
        constraints = {name: Constraint(float(at), "equal") for name, at in zip("ab", thresholds, strict=True)}
        policies = tabular.primal_dual_iterates(
            self.start, names, Multipliers(constraints, HELD), steps, RATE, strength=self.strength
        )
        return np.array([float(np.exp(policy) @ self.truth) for policy in policies])

    def proxy_points(self, steps: int) -> np.ndarray:
        """(2,): the calibrated scores at the step where the true reward is best while both are pushed."""
        log_policy, best, points = self.start, -np.inf, np.zeros(2)
        for _ in range(3 * steps):
            log_policy = tabular.normalise(log_policy + RATE * WEIGHTS[-1] * self.calibrated.sum(0))
            policy = np.exp(log_policy)
            if policy @ self.truth > best:
                best, points = policy @ self.truth, self.calibrated @ policy
        return points


Run = Callable[[World, float, int], np.ndarray]
TUNED: dict[str, tuple[tuple[float, ...], Run]] = {
    "weight": (WEIGHTS, lambda world, weight, steps: world.weighted(world.scores, weight, steps)),
    "calibrated weight": (WEIGHTS, lambda world, weight, steps: world.weighted(world.calibrated, weight, steps)),
    "xi, z": (POINTS, lambda world, point, steps: world.held(np.full(2, point), steps)),
}


def read(seed: int, tuned_on: int, count: int, steps: int, strength: float, *, scaled: bool) -> dict[str, np.ndarray]:
    """(2,) for each arm: the mean true reward over worlds after `steps` and three times as many."""
    seeds = range(seed * 1000, seed * 1000 + tuned_on + count)
    worlds = [World.of(number, strength, scaled=scaled) for number in seeds]
    others, worlds = worlds[:tuned_on], worlds[tuned_on:]
    values: dict[str, np.ndarray] = {}
    for arm, (grid, run) in TUNED.items():
        chosen = max(grid, key=lambda setting: sum(run(world, setting, steps)[-1] for world in others))
        values[arm] = _ends([run(world, chosen, 3 * steps) for world in worlds], steps)
    values["xi, proxy points"] = _ends([world.held(world.proxy_points(steps), 3 * steps) for world in worlds], steps)
    values["best weight here"] = _ends([_best(world, steps) for world in worlds], steps)
    values["start"] = np.full(2, np.mean([np.exp(world.start) @ world.truth for world in worlds]))
    return values


def _best(world: World, steps: int) -> np.ndarray:
    runs = [world.weighted(world.calibrated, weight, 3 * steps) for weight in WEIGHTS]
    return max(runs, key=lambda run: run[steps - 1])


def _ends(runs: list[np.ndarray], steps: int) -> np.ndarray:
    return np.mean([(run[steps - 1], run[-1]) for run in runs], axis=0)


def main(
    repeats: str = "10", tuned_on: str = "5", worlds: str = "30", steps: str = "150", strength: str = "0.1,0.01",
    save: str = "no",
) -> None:  # fmt: skip
    count, long = int(steps), 3 * int(steps)
    tables: dict[str, list[dict[str, Any]]] = {}
    for kl in map(float, strength.split(",")):
        of_worlds = {
            title: [read(seed, int(tuned_on), int(worlds), count, kl, scaled=scaled) for seed in range(int(repeats))]
            for title, scaled in (("one scale", False), ("scales 1/3, 1, 3", True))
        }

        def ends(title: str, arm: str, end: int, of_worlds: Any = of_worlds) -> np.ndarray:
            return np.array([values[arm][end] for values in of_worlds[title]])

        columns = [(title, end, after) for title in of_worlds for end, after in ((0, count), (1, long))]
        named = {column: f"{column[0]}, {column[2]} steps" for column in columns}
        tables[f"arms-{kl:g}".replace(".", "")] = [
            {"true reward": SAID[arm], **{named[c]: ends(c[0], arm, c[1]).tolist() for c in columns}} for arm in SAID
        ]
        tables[f"differences-{kl:g}".replace(".", "")] = [
            {"paired by repeat": f"{SAID[ours]} - {SAID[control]}",
             **{named[c]: (ends(c[0], ours, c[1]) - ends(c[0], control, c[1])).tolist() for c in columns}}
            for ours, control in COMPARED
        ]  # fmt: skip
    named_seeds = f"{repeats} repeats, each tuned on {tuned_on} worlds and read on {worlds} others"
    stored_numbers.show("thresholds-over-scales", tables, seeds=named_seeds)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
