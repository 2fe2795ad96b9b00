"""The theory of accelerated preference optimisation, checked on exact tabular rounds; no model, no sampling.

He, Yuan and Gu 2024 (https://arxiv.org/abs/2410.06293), over random instances of 2 to 30 actions:

    python benchmarks/apo_tabular.py                          # under a minute on one core; save=yes keeps the numbers
    python benchmarks/apo_tabular.py instances=200000 seed=1 plot=apo_tabular.svg

Tells the error of Theorem 4.1's closed form, how often each bound is violated (the published gap bound is: see
`pipelines.algorithms.tabular.published_gap_bound`), momentum against plain iterative DPO of the same total exponent
(b divided by `momentum.ratio`) with exact and with noisy rewards, the rate of SPPO with a dominant response, and how
fast SPPO leaves the equilibrium of rock-paper-scissors. `plot` saves a picture of the bounds and the rates.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import numpy as np
import stored_numbers

from trimtab.pipelines.algorithms import momentum, tabular

ALPHAS = (0.0, 0.3, 0.6, 0.9)
ACTIONS = (2, 3, 5, 10, 30)
ROUNDS = 10
THRESHOLD = 1 / (1 + math.exp(1 / math.e))  # of p*, above which the published bound is false for some rewards
SLACK, TINY = 1 + 1e-9, 1e-300  # two actions meet the TV bound up to rounding, and float64 loses digits near zero
# Response 0 wins against each other with at least 0.75; SPPO with eta = 0.4 has the rate 0.4 (0.75 - 0.5) = 0.1.
DOMINANT = np.array([[0.5, 0.75, 0.85, 0.95], [0.25, 0.5, 0.3, 0.8], [0.15, 0.7, 0.5, 0.4], [0.05, 0.2, 0.6, 0.5]])
ROCK_PAPER_SCISSORS = 0.5 + 0.4 * np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])


Rows = list[dict[str, Any]]


def main(instances: str = "20000", seed: str = "0", plot: str = "", save: str = "no") -> None:
    rng = np.random.default_rng(int(seed))
    each = int(instances) // len(ACTIONS)
    tables = {"closed-form": closed_form(rng, each)}
    tables["bounds"], points = bounds(rng, each)
    tables |= {"matched": matched(rng), "noisy": noisy(rng)}
    tables["dominant"], curves = dominant()
    tables["cyclic"] = cyclic()
    stored_numbers.show("momentum-in-theory", tables, seeds=f"{instances} random instances, seed {seed}")
    if plot:
        draw(plot, points, curves)


def instances_of(rng: np.random.Generator, actions: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log pi_ref and normal rewards, (count, actions) each, and b in [0.1, 10], (count, 1).

    References from uniform to nearly deterministic.
    """
    log_reference = tabular.normalise(rng.uniform(0, 4, (count, 1)) * rng.standard_normal((count, actions)))
    return log_reference, rng.standard_normal((count, actions)), 10 ** rng.uniform(-1, 1, (count, 1))


def closed_form(rng: np.random.Generator, count: int) -> Rows:
    """The error of Theorem 4.1 for rewards that change every round, relative where |log pihat| > 1."""
    rows = []
    for alpha in ALPHAS:
        error = 0.0
        for actions in ACTIONS:
            log_reference, _, strength = instances_of(rng, actions, count)
            rewards = rng.standard_normal((ROUNDS, count, actions))
            found = tabular.rounds(log_reference, lambda t, _, r=rewards: r[t], strength, alpha, ROUNDS)
            for t in range(1, ROUNDS + 1):
                expected = tabular.closed_form(log_reference, rewards[:t], strength, alpha)
                error = max(error, (np.abs(found[t] - expected) / np.maximum(1, np.abs(expected))).max())
        rows.append({"momentum": alpha, "largest error of log-probabilities": f"{error:.0e}"})
    return rows


def bounds(rng: np.random.Generator, count: int) -> tuple[Rows, list[tuple[np.ndarray, np.ndarray]]]:
    """How many instances violate each bound in any round; p* and the largest gamma gap of every instance."""
    rows, points = [], []
    for alpha in ALPHAS:
        parts = zip(*(violations(rng, alpha, actions, count) for actions in ACTIONS), strict=True)
        best, scaled, corrected, off, published = map(np.concatenate, parts)
        groups = (best <= THRESHOLD, (best > THRESHOLD) & (best <= 0.5), best > 0.5)
        shares = [f"{published[group].mean():.1%}" for group in groups]
        rows.append({
            "momentum": alpha, "gap <= log(1/p\\*)/gamma": int(corrected.sum()), "total variation": int(off.sum()),
            "the paper's log((1 - p\\*)/p\\*)/gamma": f"{published.mean():.1%}",
            **dict(zip(("p\\* <= 0.409", "0.409 to 0.5", "above 0.5"), shares, strict=True)),
        })  # fmt: skip
        points.append((best, scaled))
    return rows, points


def violations(rng: np.random.Generator, alpha: float, actions: int, count: int) -> tuple[np.ndarray, ...]:
    """p*, the largest gamma gap of the rounds, and whether any round violates the corrected bound of the gap, that of
    the total variation, and the published one of the gap; (count,) each."""
    log_reference, reward, strength = instances_of(rng, actions, count)
    found = tabular.rounds(log_reference, lambda *_: reward, strength, alpha, ROUNDS)[1:]
    gamma = np.array([[momentum.exponent(alpha, t)] for t in range(1, ROUNDS + 1)]) / strength[:, 0]
    best = np.take_along_axis(log_reference, reward.argmax(-1)[:, None], -1)[:, 0]
    gap, off = tabular.gap(found, reward), tabular.total_variation(found, tabular.optimum(reward))
    corrected, published = tabular.gap_bound(best, gamma), tabular.published_gap_bound(best, gamma)
    outside = [
        values > SLACK * bound + TINY
        for values, bound in (
            (gap, corrected),
            (off, tabular.total_variation_bound(log_reference, reward, gamma)),
            (gap, published),
        )
    ]
    return np.exp(best), (gamma * gap).max(0), *(found.any(0) for found in outside)


def matched(rng: np.random.Generator, count: int = 2000) -> Rows:
    """Exact rounds with momentum beside exact rounds of a smaller b: 10 actions, b = 1."""
    rows = []
    log_reference, reward, _ = instances_of(rng, 10, count)
    for alpha in ALPHAS[1:]:
        for count in (3, 5, 10):
            ratio = momentum.ratio(alpha, count)
            arms = [(1.0, 0.0), (1.0, alpha), (1 / ratio, 0.0)]
            plain, ours, same = (tabular.rounds(log_reference, lambda *_: reward, b, a, count)[-1] for b, a in arms)
            gaps = [f"{tabular.gap(policy, reward).mean():.5f}" for policy in (plain, ours, same)]
            arms_told = dict(zip(("gap, DPO b", "APO", "DPO b / ratio"), gaps, strict=True))
            differs = f"{np.abs(ours - same).max():.0e}"
            told = {"momentum": alpha, "rounds": count, "ratio": f"{ratio:.2f}"}
            rows.append({**told, **arms_told, "log-probabilities differ": differs})
    return rows


def noisy(rng: np.random.Generator, count: int = 20000) -> Rows:
    """What is left of momentum when every round's reward has fresh noise: gaps after 3 rounds, 10 actions, b = 1."""
    rows = []
    log_reference, reward, _ = instances_of(rng, 10, count)
    for sd in (0.5, 1.0, 2.0):
        seen = reward + sd * rng.standard_normal((3, *reward.shape))
        for alpha in ALPHAS[1:]:
            arms = [(1.0, 0.0), (1.0, alpha), (1 / momentum.ratio(alpha, 3), 0.0)]
            plain, ours, same = (
                tabular.gap(tabular.rounds(log_reference, lambda t, _, seen=seen: seen[t], b, a, 3)[-1], reward)
                for b, a in arms
            )
            gaps = [f"{gap.mean():.4f}" for gap in (plain, ours, same)]
            told = dict(zip(("gap, DPO b", "APO", "DPO b / ratio"), gaps, strict=True))
            rows.append({"noise": sd, "momentum": alpha, **told, "APO - DPO b / ratio": list(map(float, ours - same))})
    return rows


def dominant(count: int = 400, settled: int = 150) -> tuple[Rows, dict[float, np.ndarray]]:
    """SPPO's slopes, rounds `settled` to `count`; log TV(pihat_t, y*) per round, (count + 1,), by alpha."""
    rows, curves = [], {}
    for alpha in ALPHAS:
        policies = tabular.rounds(
            tabular.normalise(np.zeros(4)), lambda _, now: tabular.win_probability(DOMINANT, now), 2.5, alpha, count
        )
        curves[alpha] = np.log(tabular.total_variation(policies, tabular.optimum(np.array([1.0, 0, 0, 0]))))
        slope = np.polyfit(np.arange(settled, count + 1), curves[alpha][settled:], 1)[0]
        rows.append({"momentum": alpha, "slope": f"{slope:.4f}", "times 1 - momentum": f"{slope * (1 - alpha):.4f}"})
    return rows, curves


def cyclic(count: int = 20) -> Rows:
    """How momentum speeds up SPPO's escape from the uniform equilibrium of rock-paper-scissors, of eta 0.5."""
    rows = []
    uniform = tabular.normalise(np.zeros(3))
    start = tabular.normalise(1e-6 * np.array([1.0, -0.5, -0.5]))
    for alpha in (0.0, 0.1, 0.3, 0.6, 0.9):
        radius = tabular.spectral_radius(ROCK_PAPER_SCISSORS, 2.0, alpha, uniform)
        policies = tabular.rounds(
            start, lambda _, now: tabular.win_probability(ROCK_PAPER_SCISSORS, now), 2.0, alpha, count
        )
        growth = np.linalg.norm(policies[-1] - uniform) / np.linalg.norm(policies[0] - uniform)
        told = {"spectral radius - 1": f"{radius - 1:.4f}", f"a deviation after {count} rounds": f"{growth:.2f} x"}
        rows.append({"momentum": alpha, **told})
    return rows


def draw(path: str, points: list[tuple[np.ndarray, np.ndarray]], curves: dict[float, np.ndarray]) -> None:
    """gamma gap of random instances under both constants, and log TV of SPPO over the rounds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    best, scaled = (np.concatenate(column)[::10] for column in zip(*points, strict=True))
    left.scatter(best, scaled, s=2, alpha=0.3, color="0.5", label="largest gamma gap of 10 rounds", rasterized=True)
    p = np.linspace(0.005, 0.995, 400)
    left.plot(p, -np.log(p), color="tab:green", label="log 1/p*")
    left.plot(p, np.log(1 / p - 1), color="tab:red", label="log (1 - p*)/p*, published")
    left.axvline(THRESHOLD, color="0.4", linewidth=0.8, linestyle=":")
    left.set(xlabel="p* = pi_ref(y*)", ylabel="gamma x gap", ylim=(-1, 6))
    left.legend(frameon=False, fontsize=8)
    for alpha, curve in curves.items():
        right.plot(curve[:101], label=f"alpha = {alpha}")
    right.set(xlabel="round", ylabel="log TV, SPPO with a dominant response")
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
