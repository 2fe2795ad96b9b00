"""The theory of self-consuming models with curated data, checked by exact enumeration; no model.

Ferbach, Bertrand, Bose and Gidel 2024 (https://arxiv.org/abs/2407.09499), over random instances of 2 to 6 answers and
K = 2, 3, 4 choices, 10 rounds each:

    python benchmarks/curation_theory.py                  # seconds on one core; save=yes keeps the numbers
    python benchmarks/curation_theory.py instances=150000 seed=1

Tells the error of p H(p) against all n^K draws and of the K = 2 identity; how often each statement is violated
(never) and how close one comes to it; the limit with two equally good answers, which keeps their proportion; the
divergence from the reference by lambda, with bound S4; and the modes that a finite sample loses although every reward
is the same. Only this last part draws samples. S1 to S4 are the statements named in `pipelines.algorithms.curation`;
S2 is that p_t tends to p_0 restricted to the best answers.
"""

from __future__ import annotations

import math
import sys
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import numpy as np
import stored_numbers

from trimtab.pipelines.algorithms import curation, tabular

ANSWERS, CHOICES, ROUNDS = (2, 3, 4, 5, 6), (2, 3, 4), 10
LAMBDAS = 20  # different ones for each n and K
ROUNDING = 1e-13  # of quantities of order one
TIE = np.array([0.05, 0.15, 0.3, 0.5]), np.array([1.0, 1.0, 0.0, -1.0])  # p_0 and r
MODES = np.array([0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.415])


Rows = list[dict[str, Any]]


def main(instances: str = "15000", seed: str = "0", save: str = "no") -> None:
    rng = np.random.default_rng(int(seed))
    each = int(instances) // (len(ANSWERS) * len(CHOICES))
    tables = {"identities": identities(rng, each), "statements": statements(rng, each), "tie": tie()}
    tables |= {"divergence": divergence()}
    tables["drift"], tables["many-rounds"] = drift(rng)
    stored_numbers.show("curation-in-theory", tables, seeds=f"{instances} random instances, seed {seed}")


def instances_of(rng: np.random.Generator, n: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """p_0, from uniform to nearly deterministic, and normal rewards of scale 0.1 to 3 with maximum 0; (count, n) each.

    The maximum does not matter: no statement changes when a constant is added to r.
    """
    p = np.exp(tabular.normalise(rng.uniform(0, 3, (count, 1)) * rng.standard_normal((count, n))))
    reward = 10 ** rng.uniform(-1, 0.5, (count, 1)) * rng.standard_normal((count, n))
    return p, reward - reward.max(-1, keepdims=True)


def enumerated(p: np.ndarray, reward: np.ndarray, k: int) -> np.ndarray:
    """The distribution of the kept answer, (count, n), summed over all n^K draws as the curator sees them."""
    kept = np.zeros_like(p)
    for draw in product(range(p.shape[-1]), repeat=k):
        weights = np.exp(reward[:, draw])
        chance = p[:, draw].prod(-1, keepdims=True) * weights / weights.sum(-1, keepdims=True)
        for place, answer in enumerate(draw):
            kept[:, answer] += chance[:, place]
    return kept


def identities(rng: np.random.Generator, count: int) -> Rows:
    """The largest errors of p H(p), of E_p H = 1, and of H = 2 P(x beats p) for K = 2."""
    rows = []
    for k in CHOICES:
        errors = np.zeros(3)
        for n in ANSWERS:
            p, reward = instances_of(rng, n, count)
            factor = curation.advantage(p, reward, k)
            beats = (p[:, None] / (1 + np.exp(reward[:, None] - reward[..., None]))).sum(-1)
            differences = p * factor - enumerated(p, reward, k), (p * factor).sum(-1) - 1, factor - 2 * beats
            errors = np.maximum(errors, [np.abs(difference).max() for difference in differences])
        of_two = f"{errors[2]:.0e}" if k == 2 else ""
        told = {"p H(p)": f"{errors[0]:.0e}", "E H = 1": f"{errors[1]:.0e}", "H = 2 P(beats)": of_two}
        rows.append({"K": k, **told})
    return rows


def statements(rng: np.random.Generator, count: int) -> Rows:
    """For each statement its violations beyond rounding, and how near the smaller side comes to the larger at most."""
    rows = []
    found = {k: [checks(rng, n, k, count) for n in ANSWERS] for k in CHOICES}
    for name in found[2][0]:
        for k in CHOICES:
            small, large = (np.concatenate([part[name][side].ravel() for part in found[k]]) for side in (0, 1))
            slack = large - small
            # a ratio of two rounding errors says nothing
            clear = (large > 1e-6) & (small > 0)
            nearest = f"{(small[clear] / large[clear]).max():.2%}" if clear.any() else ""
            violations = int((slack < -ROUNDING).sum())
            rows.append(
                {"statement": name, "K": k, "checks": slack.size, "violations": violations, "attained": nearest}
            )
    return rows


def checks(rng: np.random.Generator, n: int, k: int, count: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By statement the side that is to be the smaller and that which is to be the larger, (rounds, count) each."""
    p, reward = instances_of(rng, n, count)
    path = trajectory(p, reward, k)
    gain, rise = (np.diff((path * values).sum(-1), axis=0) for values in (np.exp(reward), reward))
    nothing = np.zeros_like(gain)
    found = {"S1 E[e^r]": (curation.guaranteed(path[:-1], reward, k), gain), "S1 E[r] rises": (nothing, rise)}

    tied = reward.copy()  # a second answer becomes as good as the best
    tied[np.arange(count), (reward.argmax(-1) + rng.integers(1, n, count)) % n] = 0
    path = trajectory(p, tied, k)
    mass = (path * (tied == 0)).sum(-1, keepdims=True)  # KL(p* || p_t) = -log of it
    within = path * (tied == 0) / mass
    found["S2 KL falls"] = nothing, np.diff(np.log(mass[..., 0]), axis=0)
    found["S2 weights stay"] = np.abs(within[1:] - within[0]).max(-1), nothing

    for name in ("S3 E[e^r]", "S4 KL"):
        sides = []
        for some in np.array_split(np.arange(count), LAMBDAS):
            start, r, ratio = p[some], reward[some], 10 ** rng.uniform(-1, 1)
            if name == "S4 KL":
                ratio = rng.uniform(0.05, 0.99) / (k - 1)
            path = trajectory(start, r, k, ratio)
            gain = ((path - start) * np.exp(r)).sum(-1)[1:]
            if name == "S4 KL":
                sides.append((kl(path, start)[1:], np.full_like(gain, curation.divergence_bound(k, ratio))))
            else:
                sides.append((np.broadcast_to(curation.guaranteed(start, r, k, ratio), gain.shape), gain))
        found[name] = tuple(np.concatenate(side, axis=1) for side in zip(*sides, strict=True))
    return found


def trajectory(p: np.ndarray, reward: np.ndarray, k: int, ratio: float = math.inf, count: int = ROUNDS) -> np.ndarray:
    """p_0 to p_count, (count + 1, *p.shape); p_0 is also the real data."""
    path = [p]
    for _ in range(count):
        path.append(curation.retrain(path[-1], reward, k, ratio, p))
    return np.stack(path)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * np.log(np.maximum(p, 1e-300) / q)).sum(-1)


def tie() -> Rows:
    """The way to the limit with two equally good answers, which is .25, .75, 0, 0."""
    rows = []
    for k in CHOICES:
        path = trajectory(*TIE, k, count=100)
        for t in (0, 5, 20, 50, 100):
            first, second, *others = path[t]
            far = f"{-math.log1p(-sum(others)):.1e}"
            told = {"p of the first": f"{first:.6f}", "p of the second": f"{second:.6f}", "KL to the limit": far}
            rows.append({"K": k, "round": t, **told})
    return rows


def divergence() -> Rows:
    """KL(p_t || p_ref) after 100 rounds with K = 4, and the bound, for several lambda."""
    p, reward = TIE
    rows = []
    for ratio in (0.1, 0.2, 0.3, 0.33, 1.0, 4.0, math.inf):
        last = trajectory(p, reward, 4, ratio, 100)[-1]
        told = {"KL": kl(last, p), "bound": curation.divergence_bound(4, ratio), "p of the best": last[:2].sum()}
        share = f"{1 / (1 + ratio):.2f}"
        rows.append({"lambda": f"{ratio:g}", "real share": share, **{name: f"{x:.3f}" for name, x in told.items()}})
    return rows


def drift(rng: np.random.Generator, count: int = 20000) -> tuple[Rows, Rows]:
    """What refitting on M answers loses when all rewards are equal, after one round and after many.

    Then p H(p) = p, and chance is all: a mode of mass q is gone after a round with probability (1 - q)^M, and the
    chance that two answers differ, 1 - sum p^2, has a mean that falls by exactly (1 - 1/M)^t without real data.
    """
    once, rows = [], []
    for size in (20, 200):
        lost = (rng.multinomial(size, MODES, count) == 0).mean(0)
        for q, share in zip(MODES, lost, strict=True):
            told = {"lost after a round": f"{share:.4f}", "(1 - q)^M": f"{(1 - q) ** size:.4f}"}
            once.append({"M": size, "mass q of a mode": f"{q:g}", **told})
    for size, real in product((20, 200), (0.0, 0.2)):
        p, differ = np.broadcast_to(MODES, (count, len(MODES))), 1 - (MODES**2).sum()
        same = 1 - differ
        for t in range(1, 101):
            p = real * MODES + (1 - real) * rng.multinomial(size, p) / size
            # E sum p'^2, as E m^2 / M^2 = p^2 + p (1 - p) / M, and E p = q in every round
            kept = same + (1 - same) / size
            same = (real**2 + 2 * real * (1 - real)) * (1 - differ) + (1 - real) ** 2 * kept
            if t in (1, 10, 100):
                measured = {"modes alive of 8": (p > 0).sum(-1).tolist(), "1 - sum p^2": (1 - (p**2).sum(-1)).tolist()}
                rows.append({"M": size, "real": str(real), "round": t, **measured, "exact": f"{1 - same:.4f}"})
    return once, rows


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
