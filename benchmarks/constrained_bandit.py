"""Multipliers on twelve answers and two rewards, where everything is known: the saddle point, slack, and what is out
of reach.

    python benchmarks/constrained_bandit.py                 # two minutes on one core; save=yes keeps the numbers
    python benchmarks/constrained_bandit.py instances=100 steps=20000

Random reference policies and rewards. The policy goes up the exact gradient of the mixed advantage and the
multipliers down theirs, in turns, from the paper's start. Thresholds are those that known multipliers hold; told
are the shares of the instances that end within 1e-6 of them, and the largest distance.

Then what ends the cycles of descent: a task reward with one constraint, without a KL, whose best policy mixes two
answers, with a KL of 0.3, and with that where every step sees 64 sampled answers in the place of exact means. Told
are the share of instances that have come to rest, within 0.01 of the threshold over the last tenth of `cycles` steps,
the largest violation there, and how far the last multiplier is off (medians over instances).

Then over-optimisation, exactly: a true reward that is best at moderate values of both rewards, pushed by the first one
alone. Where it is best moves with the rewards' correlation, and so do thresholds that are chosen one by one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import numpy as np
import stored_numbers

from trimtab.pipelines.algorithms import tabular
from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers, MultiplierSettings

ANSWERS, SAMPLES = 12, 64
# (what, kind of both constraints, the multipliers that hold the thresholds, distance of b below its mean then)
CASES = (
    ("inside of lambda_i < (1 + sum lambda) / 2", "at_least", (0.8, 0.6), 0.0),
    ("inside, equal", "equal", (0.8, 0.6), 0.0),
    ("outside", "at_least", (0.3, 2.5), 0.0),
    ("outside, equal, of either sign", "equal", (1.0, -2.0), 0.0),
    ("slack: b has more than its threshold", "at_least", (0.8, 0.0), 0.2),
)
PLAIN = {"parametrization": "projected", "learning_rate": 0.1, "momentum": 0.0, "max_grad_norm": 10.0}
WAYS = {
    "descent": PLAIN,
    "descent, smoothing 0.9": PLAIN | {"smoothing": 0.9},
    "proportional 0.3": PLAIN | {"proportional": 0.3},
    "proportional 3": PLAIN | {"proportional": 3.0},
    "penalty 1": PLAIN | {"penalty": 1.0},
    "augmented 1, every 10": {"parametrization": "projected", "update": "augmented", "penalty": 1.0, "every": 10},
    "anchoring 1 (Halpern)": PLAIN | {"anchoring": 1.0},
    "anchoring 30": PLAIN | {"anchoring": 30.0},
    "settle after half": PLAIN,
}


Rows = list[dict[str, Any]]


def main(instances: str = "20", steps: str = "20000", cycles: str = "4000", save: str = "no") -> None:
    count = int(instances)
    tables = {
        "reached": reached(count, int(steps)),
        "cycles": at_rest(count, int(cycles)),
        "pushed": too_far(10 * count),
    }
    named = f"{instances} instances a row, and {10 * count} where one reward is pushed"
    stored_numbers.show("multipliers-on-a-bandit", tables, seeds=named)


def reached(instances: int, steps: int) -> Rows:
    rows = []
    for words, kind, lam, below in CASES:
        for form in ("bounded", "softplus", "projected", *(("log",) if kind == "at_least" else ())):
            ends = [solve(seed, form, kind, np.array(lam), below, steps) for seed in range(instances)]
            share = sum(distance < 1e-6 for distance, _ in ends) / len(ends)
            distance, error = (f"{max(each):.0e}" for each in zip(*ends, strict=True))
            told = {"reached to 1e-6": f"{share:.0%}", "largest distance": distance, "lambda is off by": error}
            rows.append({"thresholds that need": f"lambda = {lam}: {words}", "parametrisation": form, **told})
    return rows


def at_rest(instances: int, steps: int) -> Rows:
    rows: dict[str, dict[str, Any]] = {way: {"": way} for way in WAYS}
    for title, strength, sampled in (("no KL", 0.0, False), ("KL 0.3", 0.3, False), ("sampled", 0.3, True)):
        for way, settings in WAYS.items():
            settings = settings | ({"settle": steps // 2} if way.startswith("settle") else {})
            ends = np.array([cycle(seed, settings, strength, sampled, steps) for seed in range(instances)])
            violation, of_lambda = np.median(ends, axis=0)
            rows[way][f"{title}: at rest"] = f"{(ends[:, 0] < 0.01).mean():.0%}"
            rows[way] |= {f"{title}: violation": f"{violation:.1e}", f"{title}: lambda": f"{of_lambda:.1e}"}
    return list(rows.values())


def too_far(instances: int) -> Rows:
    rows = []
    for correlation in (-0.6, -0.3, 0.0, 0.3, 0.6, 0.9):
        best, there, end = np.transpose([pushed(seed, correlation) for seed in range(instances)]).tolist()
        told = {"mean of a where the true reward is best": best, "true reward there": there, "at the end": end}
        rows.append({"correlation of a and b": str(correlation), **told})
    return rows


def cycle(seed: int, settings: dict, strength: float, sampled: bool, steps: int) -> tuple[float, float]:
    """The largest violation over the last tenth of the steps, and how far the last multiplier is off."""
    rng = np.random.default_rng(seed)
    log_reference, (task, reward) = np.log(rng.dirichlet(np.full(ANSWERS, 5.0))), rng.standard_normal((2, ANSWERS))
    if strength:
        lam, both = 1.0, np.stack([task, reward])
        threshold = float(reward @ np.exp(tabular.tilted(log_reference, both, np.array([1.0, lam]) / strength)))
    else:
        lam, threshold = between(task, reward)
    multipliers = Multipliers({"r": Constraint(threshold)}, MultiplierSettings(**settings))
    if sampled:
        policies = sampled_iterates(rng, log_reference, task, reward, multipliers, strength, steps)
    else:
        policies = tabular.primal_dual_iterates(
            log_reference, {"r": reward}, multipliers, steps, 0.3, task=task, strength=strength
        )
    off = np.array([threshold - np.exp(policy) @ reward for policy in policies])
    return float(np.abs(off[-steps // 10 :]).max()), abs(multipliers.values()["r"] - lam)


def between(task: np.ndarray, reward: np.ndarray) -> tuple[float, float]:
    """The multiplier for which the best answer and another are worth the same, and the threshold halfway."""
    best = int(task.argmax())
    above = [other for other in range(ANSWERS) if reward[other] > reward[best]]
    if not above:
        return between(task, -reward)
    prices = {other: (task[best] - task[other]) / (reward[other] - reward[best]) for other in above}
    other = min(prices, key=prices.__getitem__)
    return float(prices[other]), float((reward[best] + reward[other]) / 2)


def sampled_iterates(
    rng: np.random.Generator, log_reference: np.ndarray, task: np.ndarray, reward: np.ndarray,
    multipliers: Multipliers, strength: float, steps: int,
) -> Iterator[np.ndarray]:  # fmt: skip
    """`tabular.primal_dual_iterates`, with means and gradients of the answers that are sampled, at a smaller rate."""
    log_policy = log_reference
    for _ in range(steps):
        policy = np.exp(log_policy)
        shares = rng.multinomial(SAMPLES, policy / policy.sum()) / SAMPLES
        multipliers.observe({"r": float(shares @ reward)})
        base, weights = multipliers.weights()
        values = base * (task + strength * (log_reference - log_policy)) + weights["r"] * reward
        advantages = (values - shares @ values) * shares / np.maximum(policy, 1e-3)
        log_policy = tabular.normalise(log_policy + 0.05 * advantages)
        multipliers.step()
        yield log_policy


def pushed(seed: int, correlation: float) -> tuple[float, float, float]:
    """The first reward's mean where the true reward is best while only it is pushed, the true reward there, and at
    the end."""
    rng = np.random.default_rng(seed)
    log_reference, table = np.log(rng.dirichlet(np.full(ANSWERS, 5.0))), rng.standard_normal((2, ANSWERS))
    table -= table.mean(1, keepdims=True)
    table[1] -= table[0] * (table[1] @ table[0]) / (table[0] @ table[0])  # so that the correlation is what is wanted
    table /= table.std(1, keepdims=True)
    table[1] = correlation * table[0] + np.sqrt(1 - correlation**2) * table[1]
    gold = -np.square(table - 0.6).sum(0)  # of an answer: best at 0.6 of both
    path = [np.exp(tabular.tilted(log_reference, table, np.array([push, 0.0]))) for push in np.linspace(0, 20, 401)]
    values = [policy @ gold for policy in path]
    best = int(np.argmax(values))
    return float(path[best] @ table[0]), float(values[best]), float(values[-1])


def solve(seed: int, form: str, kind: str, lam: np.ndarray, below: float, steps: int) -> tuple[float, float]:
    """How far the means are on the wrong side of their thresholds, and the multipliers off, at most."""
    rng = np.random.default_rng(seed)
    log_reference, table = np.log(rng.dirichlet(np.ones(ANSWERS))), rng.standard_normal((2, ANSWERS))
    target = table @ np.exp(tabular.tilted(log_reference, table, lam))
    thresholds = dict(zip("ab", target - np.array([0.0, below]), strict=True))
    settings = MultiplierSettings(parametrization=form, learning_rate=0.5, max_grad_norm=10)
    multipliers = Multipliers({name: Constraint(theta, kind) for name, theta in thresholds.items()}, settings)
    rewards = dict(zip("ab", table, strict=True))
    means = table @ np.exp(tabular.primal_dual(log_reference, rewards, multipliers, steps, 0.3))
    missing = [multipliers.constraints[name].violation(mean) for name, mean in zip(thresholds, means, strict=True)]
    distance = max(max(0.0, each) if kind == "at_least" else abs(each) for each in missing)
    return distance, float(np.abs(np.array(list(multipliers.effective().values())) - lam).max())


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
