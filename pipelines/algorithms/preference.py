"""Preferences from scores, and the likelihood of rankings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations

import torch


def best_worst(scores: Sequence[float]) -> list[tuple[int, int]]:
    """[(index of the highest score, index of the lowest)], as in best-of-K against worst-of-K; the first wins ties.

    [] for fewer than two.
    """
    if len(scores) < 2:
        return []
    order = range(len(scores))
    return [(max(order, key=lambda i: (scores[i], -i)), min(order, key=lambda i: (scores[i], -i)))]


def drawn_pair(scores: Sequence[float], seed: str) -> list[tuple[int, int]]:
    """[(better, worse)] of two indices drawn at random, the same for the same seed; [] for fewer than two."""
    if len(scores) < 2:
        return []
    i, j = random.Random(seed).sample(range(len(scores)), 2)
    return [(i, j) if scores[i] >= scores[j] else (j, i)]


def all_pairs(scores: Sequence[float]) -> list[tuple[int, int]]:
    """Every (better, worse) pair of indices; of equal scores the first comes first."""
    return [(i, j) if scores[i] >= scores[j] else (j, i) for i, j in combinations(range(len(scores)), 2)]


def ranking(scores: Sequence[float]) -> list[int]:
    """Indices from the highest score to the lowest."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def win_probabilities(scores: Sequence[float], scale: float = 1.0) -> list[float]:
    """P(answer i beats a random one of the K) for every i, from their scores, as SPPO as released has it.

    p_i = 1/K sum_j sigmoid(scale (s_i - s_j)), where j = i counts as 1/2; so they average 1/2. `scale` turns the unit
    of the scores into logits. Wu et al. 2024, arXiv 2405.00675.
    """
    logits = scale * torch.tensor(scores, dtype=torch.float64)
    return torch.sigmoid(logits[:, None] - logits[None, :]).mean(1).tolist()


def plackett_luce(rewards: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of rankings under Plackett-Luce (Luce 1959, Plackett 1975).

    rewards: (B, K), column k is the reward of the answer ranked k-th, best first; -inf marks a missing answer (only
    at the end of a row). Returns (B,), in nats: -sum_k [ r_k - logsumexp(r_k, ..., r_{K-1}) ]. For K = 2 it is the
    Bradley-Terry loss -log sigmoid(r_0 - r_1).
    """
    remaining = rewards.flip(-1).logcumsumexp(-1).flip(-1)
    present = rewards > -torch.inf
    return -torch.where(present, rewards - remaining, 0.0).sum(-1)
