"""How often one policy's answers beat another's on the same prompts: as they are, and at equal length.

The answers of a prompt are not independent, so errors are over prompts: those of the shares that each prompt has won.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from trimtab.pipelines.algorithms.statistics import mean_stderr, wilson

PRIOR = 0.01  # keeps the coefficients of policies that win or lose everything finite
UPDATES = 50  # of Newton's method, at most
Z = 1.959964  # of a 95% interval


def share(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Share of all pairs (one of ours, one of theirs) that ours wins; a tie counts one half."""
    return float(_outcomes(ours, theirs).mean())


def as_they_are(ours: Iterable[ArrayLike], theirs: Iterable[ArrayLike]) -> dict[str, float]:
    """The mean `rate` of the prompts' shares, its `stderr` over prompts, and its 95% interval, `low` to `high`.

    Both are the scores of the answers to each prompt, for the same prompts. The interval is Wilson's for as many
    independent trials as have that error (Korn and Graubard 1998); for as many trials as there are prompts where all
    prompts have the same share, whose error would be 0.
    """
    shares = list(map(share, ours, theirs))
    rate, stderr = mean_stderr(shares)
    trials = rate * (1 - rate) / stderr**2 if stderr > 0 and 0 < rate < 1 else len(shares)
    low, high = wilson(rate, trials)
    return {"rate": rate, "stderr": stderr, "low": low, "high": high}


def at_equal_length(
    ours: Iterable[ArrayLike],
    theirs: Iterable[ArrayLike],
    our_lengths: Iterable[ArrayLike],
    their_lengths: Iterable[ArrayLike],
) -> dict[str, float]:
    """The `rate` that a logistic regression expects between answers of equal length, and its interval.

    Lengths are those of the same answers, in any unit. P(ours wins) = sigmoid(a + b tanh(d / sd d)), d the difference
    of two answers' lengths; the rate is sigmoid(a). That is the length-controlled win rate of AlpacaEval 2 (Dubois et
    al. 2024, https://arxiv.org/abs/2404.04475) without its term for an instruction's difficulty, which takes many
    policies to learn. Prompts count alike, whatever the number of their answers, and errors are clustered by prompt
    (the sandwich estimator).
    """
    won = [pairs.ravel() for pairs in map(_outcomes, ours, theirs)]
    longer = [pairs.ravel() for pairs in map(_differences, our_lengths, their_lengths)]
    pairs_of = [len(pairs) for pairs in won]
    prompts = len(won)
    prompt, weight = np.repeat(np.arange(prompts), pairs_of), np.repeat(1 / np.array(pairs_of), pairs_of)
    outcome, difference = np.concatenate(won), np.concatenate(longer)
    spread = difference.std() or 1.0
    inputs = np.stack([np.ones_like(difference), np.tanh(difference / spread)], 1)
    coefficients, bread = _fitted(inputs, outcome, weight)
    slopes = (weight * (outcome - _sigmoid(inputs @ coefficients)))[:, None] * inputs
    by_prompt = np.stack([np.bincount(prompt, column, prompts) for column in slopes.T], 1)
    variance = (bread @ by_prompt.T @ by_prompt @ bread)[0, 0] * prompts / max(1, prompts - 1)
    low, rate, high = (_sigmoid(coefficients[0] + side * Z * math.sqrt(variance)) for side in (-1, 0, 1))
    return {"rate": float(rate), "low": float(low), "high": float(high)}


def _outcomes(ours: ArrayLike, theirs: ArrayLike) -> np.ndarray:
    """1 where ours wins, 1/2 where neither does, else 0: (ours, theirs)."""
    return (np.sign(_differences(ours, theirs)) + 1) / 2


def _differences(ours: ArrayLike, theirs: ArrayLike) -> np.ndarray:
    return np.subtract.outer(np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64))


def _fitted(inputs: np.ndarray, outcome: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients of a weighted logistic regression, and the inverse of its curvature there."""
    coefficients = np.zeros(inputs.shape[1])
    for _ in range(UPDATES):
        expected = _sigmoid(inputs @ coefficients)
        slope = inputs.T @ (weight * (outcome - expected)) - PRIOR * coefficients
        curvature = (inputs.T * (weight * expected * (1 - expected))) @ inputs + PRIOR * np.eye(len(coefficients))
        update = np.linalg.solve(curvature, slope)
        coefficients = coefficients + update * min(1.0, 2.0 / np.abs(update).max(initial=1e-300))
        if np.abs(update).max() < 1e-10:
            break
    return coefficients, np.linalg.inv(curvature)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
