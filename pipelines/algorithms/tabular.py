"""Accelerated and constrained preference optimisation on a softmax over n actions, in float64: exact iterates.

He, Yuan and Gu 2024 (https://arxiv.org/abs/2410.06293); for constraints Moskovitz et al. 2023 (2310.04373). A policy
is its log-probabilities, an array (..., n); leading axes are independent instances. b is the strength of the KL term
(DPO's beta; SPPO's 1 / eta), alpha the momentum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from trimtab.pipelines.algorithms.lagrange import Multipliers
from trimtab.pipelines.algorithms.momentum import coefficients


def normalise(logits: np.ndarray) -> np.ndarray:
    """log softmax over the last axis; -inf is an action that is never taken."""
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def proximal(log_policy: np.ndarray, reward: np.ndarray, strength: float | np.ndarray) -> np.ndarray:
    """One exact round, argmax_pi E_pi[r] - b KL(pi || pi_t): log pihat_{t+1} = log pi_t + r / b + constant.

    `strength` is a number or (..., 1).
    """
    return normalise(log_policy + reward / strength)


def extrapolate(newer: np.ndarray, older: np.ndarray, momentum: float) -> np.ndarray:
    """log pi_{t+1} = log pihat_{t+1} + alpha (log pihat_{t+1} - log pihat_t) + constant."""
    return normalise(newer + momentum * (newer - older))


def rounds(
    log_reference: np.ndarray,
    reward: Callable[[int, np.ndarray], np.ndarray],
    strength: float | np.ndarray,
    momentum: float,
    count: int,
) -> np.ndarray:
    """All iterates [log pihat_0 = log pi_ref, ..., log pihat_count], (count + 1, ..., n), none of them extrapolated.

    `reward(t, log pi_t)` is round t's reward, (..., n): a constant, a noisy one, what SPPO maximises
    (`win_probability`), or the implicit reward b log pihat_{t+1} / pi_t that a loss has learned from pairs of pi_t.
    pi_t, the extrapolated policy, is both the sampler and the reference of round t; pi_0 = pihat_0.
    """
    iterates, log_policy = [log_reference], log_reference
    for t in range(count):
        iterates.append(proximal(log_policy, reward(t, log_policy), strength))
        log_policy = extrapolate(iterates[-1], iterates[-2], momentum)
    return np.stack(iterates)


def closed_form(
    log_reference: np.ndarray, rewards: np.ndarray, strength: float | np.ndarray, momentum: float
) -> np.ndarray:
    """Theorem 4.1: log pihat_T = log pi_ref + (1/b) sum_i c_i r_i + constant, c_i = (1 - alpha^(T-i)) / (1 - alpha).

    `rewards` is (T, ..., n), one of each round. Returns (..., n).
    """
    total = np.tensordot(coefficients(momentum, len(rewards)), rewards, axes=1)
    return normalise(log_reference + total / strength)


def win_probability(preferences: np.ndarray, log_policy: np.ndarray) -> np.ndarray:
    """P(y > pi) of each y, (..., n), from `preferences` P[y, y'] = P(y > y'), (n, n).

    As the reward of `rounds` it gives SPPO (Wu et al. 2024, https://arxiv.org/abs/2405.00675), multiplicative weights:
    pihat_{t+1} = pi_t exp(eta P(y > pi_t)) / Z, eta = 1 / b.
    """
    return np.exp(log_policy) @ preferences.T


def spectral_radius(preferences: np.ndarray, strength: float, momentum: float, log_policy: np.ndarray) -> float:
    """Growth per round of a small deviation from `log_policy` (n,), a fixed point of SPPO with momentum.

    Above 1 the fixed point is repelling. The round is linear in (log pi_t, log pihat_t) there: with
    J = 1 + (1/b) P (diag p - p p^T) it is [[(1 + alpha) J, -alpha], [J, 0]]. Constants, which do not change a policy,
    are projected out.
    """
    n = len(log_policy)
    p = np.exp(log_policy)
    centred = np.eye(n) - 1 / n
    step = centred @ (np.eye(n) + preferences @ (np.diag(p) - np.outer(p, p)) / strength)
    both = np.block([[(1 + momentum) * step, -momentum * centred], [step, np.zeros((n, n))]])
    return float(np.abs(np.linalg.eigvals(both)).max())


def optimum(reward: np.ndarray) -> np.ndarray:
    """log pi*, (..., n): all mass on the best action, shared by equals."""
    return normalise(np.where(reward == reward.max(-1, keepdims=True), 0.0, -np.inf))


def gap(log_policy: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """max r - E_pi[r], (...), in units of the reward, as a sum of terms >= 0 so that a tiny gap stays exact."""
    return (np.exp(log_policy) * (reward.max(-1, keepdims=True) - reward)).sum(-1)


def total_variation(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """TV(p, q) in [0, 1], (...): the mass that p has too much. Against `optimum` it is exact however small it is."""
    return np.maximum(np.exp(log_p) - np.exp(log_q), 0.0).sum(-1)


def kl(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """KL(p || q) in nats, (...); q is positive everywhere, p need not be."""
    return (np.exp(log_p) * (np.where(log_p > -np.inf, log_p, log_q) - log_q)).sum(-1)


def gap_bound(log_best: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Upper bound log(1/p*) / gamma of the gap, in units of the reward, after rounds with a constant reward.

    log_best: log p* = log pi_ref(y*); gamma = `momentum.exponent(alpha, T)` / b. It follows from the variational
    formula, E_pihat[r] - KL(pihat || pi_ref) / gamma = (1/gamma) log E_ref[exp(gamma r)] >= r(y*) + log(p*) / gamma.
    """
    return -log_best / gamma


def published_gap_bound(log_best: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """The bound of the paper's proof, log((1 - p*) / p*) / gamma: false for some rewards iff p* > 1 / (1 + e^(1/e)).

    That is 0.409. With x = gamma (r* - r) two actions have gamma gap = x / (1 + e^x p* / (1 - p*)). Its maximum over x
    is W((1 - p*) / (e p*)), Lambert's W, which exceeds log((1 - p*) / p*) exactly there. The worst case of more
    actions is that of two. Beyond 1/2 the published bound is negative.
    """
    return (np.log1p(-np.exp(log_best)) - log_best) / gamma


def total_variation_bound(log_reference: np.ndarray, reward: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Upper bound ((1 - p*) / p*) exp(-gamma margin) of TV(pihat, pi*), (...), margin = best minus second-best reward.

    From pihat(y) <= pihat(y*) pi_ref(y) / p* exp(-gamma margin), summed over y other than y*, which is one action.
    """
    second, first = np.moveaxis(np.sort(reward, axis=-1)[..., -2:], -1, 0)
    mass, best = np.exp(log_reference), reward == first[..., None]
    odds = np.where(best, 0.0, mass).sum(-1) / np.where(best, mass, 0.0).sum(-1)  # exact where 1 - p* is not
    return odds * np.exp(-gamma * (first - second))


def tilted(log_reference: np.ndarray, rewards: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """log pi_lambda = log pi_ref + sum_i lambda_i r_i + constant, (n,): the saddle point's policy.

    `rewards` is (N, n), `multipliers` (N,), in units of the KL (arXiv 2310.04373, section 4).
    """
    return normalise(log_reference + np.asarray(multipliers) @ rewards)


def primal_dual(
    log_reference: np.ndarray, rewards: dict[str, np.ndarray], multipliers: Multipliers, steps: int, rate: float
) -> np.ndarray:
    """The last of `primal_dual_iterates`, whose task is minus the KL to the reference."""
    return deque(primal_dual_iterates(log_reference, rewards, multipliers, steps, rate), maxlen=1)[0]


def primal_dual_iterates(
    log_reference: np.ndarray,
    rewards: dict[str, np.ndarray],
    multipliers: Multipliers,
    steps: int,
    rate: float,
    *,
    task: np.ndarray | float = 0.0,
    strength: float = 1.0,
) -> Iterator[np.ndarray]:
    """log pi, (n,), after each of `steps` of natural policy gradient on the mixed advantage and of the multipliers.

    The two take turns. The task is E[`task`] - `strength` KL(pi || pi_ref); advantages and means are exact.
    """
    log_policy = log_reference
    for _ in range(steps):
        policy = np.exp(log_policy)
        multipliers.observe({name: float(policy @ reward) for name, reward in rewards.items()})
        base, weights = multipliers.weights()
        mixed = base * (task + strength * (log_reference - log_policy))
        mixed = mixed + sum(weights[name] * rewards[name] for name in rewards)
        log_policy = normalise(log_policy + rate * mixed / max(1.0, base))
        multipliers.step()
        yield log_policy
