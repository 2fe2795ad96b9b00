"""The theory of self-consuming models with curated data, checked by exact enumeration; no model.

Ferbach, Bertrand, Bose and Gidel 2024 (https://arxiv.org/abs/2407.09499), over random instances of 2 to 6 answers and
K = 2, 3, 4 choices, 10 rounds each:

    python benchmarks/curation_theory.py                              # seconds on one core
    python benchmarks/curation_theory.py instances=150000 seed=1

Prints the error of p H(p) against all n^K draws and of the K = 2 identity; how often each statement is violated
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import numpy as np

from trimtab.pipelines.algorithms import curation, tabular
from trimtab.pipelines.algorithms.statistics import mean_stderr

ANSWERS, CHOICES, ROUNDS = (2, 3, 4, 5, 6), (2, 3, 4), 10
LAMBDAS = 20  # different ones for each n and K
ROUNDING = 1e-13  # of quantities of order one
TIE = np.array([0.05, 0.15, 0.3, 0.5]), np.array([1.0, 1.0, 0.0, -1.0])  # p_0 and r
MODES = np.array([0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.415])


def main(instances: str = "15000", seed: str = "0") -> None:
    rng = np.random.default_rng(int(seed))
    each = int(instances) // (len(ANSWERS) * len(CHOICES))
    identities(rng, each)
    statements(rng, each)
    tie()
    divergence()
    drift(rng)


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


def identities(rng: np.random.Generator, count: int) -> None:
    """Prints the errors of p H(p), of E_p H = 1, and of H = 2 P(x beats p) for K = 2."""
    print(f"identities: largest error, {count * len(ANSWERS)} random instances for each K\n")
    row("K", "p H(p)", "E H = 1", "H = 2 P(beats)")
    for k in CHOICES:
        errors = np.zeros(3)
        for n in ANSWERS:
            p, reward = instances_of(rng, n, count)
            factor = curation.advantage(p, reward, k)
            beats = (p[:, None] / (1 + np.exp(reward[:, None] - reward[..., None]))).sum(-1)
            differences = p * factor - enumerated(p, reward, k), (p * factor).sum(-1) - 1, factor - 2 * beats
            errors = np.maximum(errors, [np.abs(difference).max() for difference in differences])
        row(k, f"{errors[0]:.0e}", f"{errors[1]:.0e}", f"{errors[2]:.0e}" if k == 2 else "-")


def statements(rng: np.random.Generator, count: int) -> None:
    """Prints, for each statement, its violations, the least slack, and the largest (smaller side) / (larger side)."""
    print(f"\nstatements: {count * len(ANSWERS)} random instances for each K, {ROUNDS} rounds, e^r <= 1. A violation")
    print(f"exceeds rounding, {ROUNDING}; the largest ratio is of the smaller side to the larger, 1 if attained\n")
    row("statement", "K", "checks", "violations", "least slack", "largest ratio")
    found = {k: [checks(rng, n, k, count) for n in ANSWERS] for k in CHOICES}
    for name in found[2][0]:
        for k in CHOICES:
            small, large = (np.concatenate([part[name][side].ravel() for part in found[k]]) for side in (0, 1))
            slack = large - small
            # a ratio of two rounding errors says nothing
            clear = (large > 1e-6) & (small > 0)
            ratio = f"{(small[clear] / large[clear]).max():.4f}" if clear.any() else "-"
            row(name, k, slack.size, (slack < -ROUNDING).sum(), f"{slack.min():.1e}", ratio)


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


def tie() -> None:
    """Prints the way to the limit with two equally good answers."""
    print("\nS2 with a tie: p_0 = .05, .15, .3, .5 and r = 1, 1, 0, -1; the limit is .25, .75, 0, 0\n")
    row("K", "round", "p(first)", "p(second)", "KL(p* || p_t)")
    for k in CHOICES:
        path = trajectory(*TIE, k, count=100)
        for t in (0, 5, 20, 50, 100):
            first, second, *others = path[t]
            row(k, t, f"{first:.6f}", f"{second:.6f}", f"{-math.log1p(-sum(others)):.1e}")


def divergence() -> None:
    """Prints KL(p_t || p_ref) and the bound for several lambda."""
    p, reward = TIE
    print("\nS4 on the same answers with K = 4, after 100 rounds; without real data the limit is -log 0.2 = 1.609\n")
    row("lambda", "real share", "KL", "bound", "p(best)")
    for ratio in (0.1, 0.2, 0.3, 0.33, 1.0, 4.0, math.inf):
        last = trajectory(p, reward, 4, ratio, 100)[-1]
        bound = f"{curation.divergence_bound(4, ratio):.3f}"
        row(ratio, f"{1 / (1 + ratio):.2f}", f"{kl(last, p):.3f}", bound, f"{last[:2].sum():.3f}")


def drift(rng: np.random.Generator, count: int = 20000) -> None:
    """Prints what refitting on M answers loses when all rewards are equal: then p H(p) = p, and chance is all."""
    print(f"\ngenetic drift, flat reward, M answers kept each round, {count} runs: share of the runs that have lost a")
    print("mode of mass q after one round, and (1 - q)^M; a standard error is at most .0035\n")
    row("M", *MODES)
    for size in (20, 200):
        row(size, *(f"{share:.4f}" for share in (rng.multinomial(size, MODES, count) == 0).mean(0)))
        row("(1 - q)^M", *(f"{lost:.4f}" for lost in (1 - MODES) ** size))
    print("\nthe same over many rounds: modes alive of 8, and the chance that two answers differ, 1 - sum p^2, whose")
    print("mean falls by exactly (1 - 1/M)^t without real data; with a real share of 0.2 the exact value is lower\n")
    row("M", "real", "round", "alive", "+-", "1 - sum p^2", "+-", "exact")
    for size, real in product((20, 200), (0.0, 0.2)):
        p, differ = np.broadcast_to(MODES, (count, len(MODES))), 1 - (MODES**2).sum()
        same = 1 - differ
        for t in range(1, 101):
            p = real * MODES + (1 - real) * rng.multinomial(size, p) / size
            # E sum p'^2, as E m^2 / M^2 = p^2 + p (1 - p) / M, and E p = q in every round
            kept = same + (1 - same) / size
            same = (real**2 + 2 * real * (1 - real)) * (1 - differ) + (1 - real) ** 2 * kept
            if t in (1, 10, 100):
                alive, unlike = mean_stderr((p > 0).sum(-1)), mean_stderr(1 - (p**2).sum(-1))
                cells = f"{alive[0]:.3f}", f"{alive[1]:.3f}", f"{unlike[0]:.4f}", f"{unlike[1]:.4f}", f"{1 - same:.4f}"
                row(size, real, t, *cells)


def row(*cells: object) -> None:
    print("".join(f"{cell!s:>16}" for cell in cells))


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
