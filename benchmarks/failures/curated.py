"""Curated retraining, going wrong: exact problems."""

from __future__ import annotations

import numpy as np
from curves import SEEDS, Rows, curve

from trimtab.pipelines.algorithms import curation


def metrics() -> Rows:
    """Collapse, a reward of one aspect, a reward too small to choose by."""
    rows = []
    panel = "collapse: 200 answers kept a round, K = 4"
    for name, real, scale in (
        ("no real data", 0.0, 1.0),
        ("a fifth real", 0.2, 1.0),
        ("no real data, at random", 0.0, 0.0),
    ):
        entropies = np.mean([kept_few(seed, real, scale) for seed in range(SEEDS)], 0)
        rows.append(curve(panel, "round", "entropy of the answers (nats)", name, entropies))
    panel = "a reward that sees one aspect only"
    for name, real in (("no real data", 0.0), ("half real", 0.5)):
        seen, truth = (
            np.mean(values, 0) for values in zip(*(one_aspect(seed, real) for seed in range(SEEDS)), strict=True)
        )
        rows.append(curve(panel, "round", "reward", f"the reward, {name}", seen))
        rows.append(curve(panel, "round", "reward", f"true, {name}", truth))
    panel = "a reward too small to choose by"
    for scale in (0.1, 1.0, 8.0):
        gains, shares = zip(*(chosen_by(seed, scale) for seed in range(SEEDS)), strict=True)
        named = f"reward x {scale:g}: entropy_share {np.mean(shares):.2f}"
        rows.append(curve(panel, "round", "gain of the reward (its own sd)", named, np.mean(gains, 0)))
    return rows


def answers(seed: int, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """p_0 (count,) and two independent qualities (2, count)."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(count, 5.0)), rng.standard_normal((2, count))


def kept_few(seed: int, real: float, scale: float, rounds: int = 30, kept: int = 200) -> list[float]:
    start, (reward, _) = answers(seed)
    rng = np.random.default_rng(seed)
    p, entropies = start, [curation.entropy(start)]
    for _ in range(rounds):
        curated_p = curation.retrain(p, scale * reward, 4)
        p = real * start + (1 - real) * rng.multinomial(kept, curated_p) / kept
        entropies.append(curation.entropy(p))
    return entropies


def one_aspect(seed: int, real: float, rounds: int = 12) -> tuple[list[float], list[float]]:
    """The first quality is the reward; the truth is best half a deviation above its mean."""
    start, qualities = answers(seed)
    truth = -np.square(qualities[0] - 0.5)
    p = start
    path = [p]
    for _ in range(rounds):
        p = curation.retrain(p, qualities[0], 4, (1 - real) / real if real else np.inf, start)
        path.append(p)
    seen = [float(each @ qualities[0]) for each in path]
    return seen, [float(each @ truth) for each in path]


def chosen_by(seed: int, scale: float, rounds: int = 10) -> tuple[list[float], float]:
    start, (reward, _) = answers(seed)
    rng = np.random.default_rng(seed)
    draws = rng.choice(len(start), (200, 4), p=start)
    share = np.mean(
        [curation.entropy(curation.probabilities(scale * reward[draw], 1.0)) / np.log(4) for draw in draws]
    )
    p, gains = start, [0.0]
    for _ in range(rounds):
        p = curation.retrain(p, scale * reward, 4, 4.0, start)
        gains.append(float((p - start) @ reward))
    return gains, float(share)
