"""Curation: keeping M of K completions by preference, and what that does to a model that is retrained on them.

Ferbach, Bertrand, Bose and Gidel 2024 (https://arxiv.org/abs/2407.09499). Of x_1..x_K ~ p_t the curator keeps x_k with
probability e^{r(x_k)} / sum_j e^{r(x_j)} (Plackett-Luce), and the next model is fitted to what was kept and to real
data, lambda parts to one:

    p_{t+1}(x) = (p_ref(x) + lambda p_t(x) H_t(x)) / (1 + lambda)
    H_t(x)     = E_{x_1..x_{K-1} ~ p_t} [K e^{r(x)} / (e^{r(x)} + sum_j e^{r(x_j)})]

The second part of the file is this on n answers, exactly, by enumeration; leading axes are independent instances.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np

TINY = 1e-300


def scaled(scores: Sequence[float], temperature: float) -> np.ndarray:
    """Logits (r - max r) / temperature <= 0, shape (K,): 0 and -inf at temperature 0, all 0 at infinity.

    Raises ValueError for no scores, one that is not a finite number, and a temperature below 0 or not a number.
    """
    array = np.asarray(scores, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise ValueError(f"expected finite scores, got {list(scores)}")
    if not temperature >= 0:
        raise ValueError(f"a temperature is at least 0, got {temperature}")
    below = array - array.max()
    if temperature == 0:
        return np.where(below == 0, 0.0, -np.inf)
    with np.errstate(over="ignore"):
        return below / temperature


def probabilities(scores: Sequence[float], temperature: float) -> np.ndarray:
    """softmax(r / temperature), shape (K,): the chance of being drawn first. At 0 the best share it equally."""
    weights = np.exp(scaled(scores, temperature))
    return weights / weights.sum()


def choose(scores: Sequence[float], keep: int, temperature: float, seed: str) -> list[int]:
    """`keep` indices, different ones, in the order in which Plackett-Luce draws them with weights e^{r / temperature}.

    Each is drawn by `probabilities` among those that are left (the Gumbel top-k trick: Kool et al. 2019,
    https://arxiv.org/abs/1903.06059). Temperature 0 takes the best, equals in random order, and infinity any. The same
    arguments give the same indices everywhere. Raises ValueError for too many and for what `scaled` refuses.
    """
    if not 0 <= keep <= len(scores):
        raise ValueError(f"cannot keep {keep} of {len(scores)}")
    logits, generator = scaled(scores, temperature), random.Random(seed)
    gumbel = [-math.log(max(generator.expovariate(1.0), TINY)) for _ in scores]
    # behind the sum, for logits of -inf: the score, then chance
    keys = [(logit + noise, score, noise) for logit, score, noise in zip(logits, scores, gumbel, strict=True)]
    return sorted(range(len(keys)), key=lambda i: keys[i], reverse=True)[:keep]


def turns(scores: Sequence[float], chosen: Sequence[int], temperature: float) -> list[float]:
    """The chance of each of `chosen` to be drawn at its turn, among those then left; their product is the draw's."""
    left = list(range(len(scores)))
    chances = []
    for index in chosen:
        chances.append(float(probabilities([scores[i] for i in left], temperature)[left.index(index)]))
        left.remove(index)
    return chances


def entropy(chances: Iterable[float]) -> float:
    """-sum p log p in nats: log K when any may be chosen, 0 when the choice is certain."""
    return float(-sum(p * math.log(p) for p in chances if p > 0))


def increments(scores: Sequence[float], temperature: float) -> tuple[np.ndarray, float, float]:
    """(w, expected, guaranteed) for one prompt's K scores, with w = e^{r / temperature} / max, in (0, 1].

    `expected` is what keeping one adds to the mean of w, sum w^2 / sum w - mean w = (K-1)/K s^2 / mean w, with the
    unbiased variance s^2; `guaranteed` is S1's (K-1)/K s^2 / max w, which is no more, as the mean is below the max.
    """
    w = np.exp(scaled(scores, temperature))
    return w, float((w * w).sum() / w.sum() - w.mean()), float(w.var())


def log_exp_reward(
    groups: Sequence[Sequence[float]], temperature: float, ratio: float = math.inf
) -> tuple[float, float]:
    """(log E[w], log of what E[w] is promised to become), w = e^{r / temperature}, from prompts' scores.

    Means over prompts of those over each one's scores. Promised is what one round without real data brings (S1), or,
    with `ratio` (lambda) to one, what all rounds together bring that begin from the real data's distribution (S3). The
    largest reward is taken to be the largest of the prompt's scores.
    """
    share = 1.0 if math.isinf(ratio) else ratio / (1 + ratio) ** 3
    top = max(max(scores) for scores in groups)
    now = more = 0.0
    for scores in groups:
        w, _, increment = increments(scores, temperature)
        unit = math.exp((max(scores) - top) / temperature) / len(groups)
        now, more = now + unit * float(w.mean()), more + unit * increment
    return top / temperature + math.log(now), top / temperature + math.log(now + share * more)


def advantage(p: np.ndarray, reward: np.ndarray, k: int) -> np.ndarray:
    """H(x), (..., n), in (0, K], of which E_p H = 1; p and reward are (..., n). For K = 2 it is 2 P(x beats p)."""
    w = np.exp(reward - reward.max(-1, keepdims=True))
    rivals = np.array(list(product(range(p.shape[-1]), repeat=k - 1)), dtype=int)  # (n^(K-1), K-1)
    chance = p[..., rivals].prod(-1)[..., None, :]
    against = w[..., rivals].sum(-1)[..., None, :]
    answer = w[..., None]
    return (chance * k * answer / (answer + against)).sum(-1)


def retrain(
    p: np.ndarray, reward: np.ndarray, k: int, ratio: float = math.inf, reference: np.ndarray | None = None
) -> np.ndarray:
    """p_{t+1}, (..., n): (p_ref + lambda p_t H_t) / (1 + lambda), or p_t H_t without real data (lambda = infinity).

    `ratio` is lambda, the synthetic-to-real ratio; `reference` is p_ref, (..., n).
    """
    curated = p * advantage(p, reward, k)
    new = curated if math.isinf(ratio) else (reference + ratio * curated) / (1 + ratio)
    return new / new.sum(-1, keepdims=True)  # rounding errors would grow with every round


def guaranteed(p: np.ndarray, reward: np.ndarray, k: int, ratio: float = math.inf) -> np.ndarray:
    """What curation adds to E[e^r] at least, (...), in units of e^r: c (K-1)/K Var_p[e^r] / e^{max r}.

    Without real data (S1) c is 1 and p is p_t: E_{p_{t+1}}[e^r] - E_{p_t}[e^r] is at least this. With it (S3) p is
    p_ref = p_0 and c = lambda / (1 + lambda)^3: E_{p_t}[e^r] - E_{p_ref}[e^r] is, for every t >= 1.
    """
    share = 1.0 if math.isinf(ratio) else ratio / (1 + ratio) ** 3
    w = np.exp(reward)
    variance = (p * (w - (p * w).sum(-1, keepdims=True)) ** 2).sum(-1)
    return share * (k - 1) / k * variance / w.max(-1)


def divergence_bound(k: int, ratio: float) -> float:
    """S4: KL(p_t || p_ref) <= -log(1 - lambda (K-1)) nats for all t, if lambda < 1 / (K-1); else infinity."""
    left = 1 - ratio * (k - 1)
    return -math.log(left) if left > 0 else math.inf
