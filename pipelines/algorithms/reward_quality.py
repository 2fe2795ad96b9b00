"""How good a reward is on pairs of answers of which one is known to be better: pure functions of its scores.

A gap is the score of the better answer minus that of the worse one. By Bradley and Terry a pair is ranked as labelled
with probability sigmoid(gap), where a score is in logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trimtab.pipelines.algorithms import statistics


def accuracy(gaps: Sequence[float]) -> dict[str, float]:
    """The share of pairs ranked as labelled, a tie being one half, with its error, 95% interval and share of ties."""
    points = [0.5 if gap == 0 else float(gap > 0) for gap in gaps]
    mean, stderr = statistics.mean_stderr(points)
    low, high = statistics.wilson(mean, len(points)) if points else (0.0, 1.0)
    ties = sum(gap == 0 for gap in gaps) / len(gaps) if gaps else 0.0
    return {"mean": mean, "stderr": stderr, "low": low, "high": high, "ties": ties, "n": len(points)}


def calibration(gaps: Sequence[float], bins: int = 10) -> dict[str, object]:
    """Whether pairs that a reward is sure of are ranked right as often as it says.

    A pair's confidence is sigmoid(|gap|), from 0.5 on. `bins` holds (mean confidence, share ranked right, pairs) of
    equally many pairs each, `ece` is their mean distance weighted by pairs (Guo et al. 2017,
    https://arxiv.org/abs/1706.04599), `nll` the mean of -log sigmoid(gap) in nats: log 2 = 0.693 is ignorance.
    `scale` is the factor on the scores with the smallest nll: 1 for calibrated scores, below 1 for overconfident ones.
    """
    array = np.asarray(gaps, dtype=np.float64)
    if not array.size:
        return {"bins": [], "ece": math.nan, "nll": math.nan, "scale": math.nan}
    confidence = _sigmoid(np.abs(array))
    right = np.where(array == 0, 0.5, array > 0)
    parts = [part for part in np.array_split(np.argsort(confidence, kind="stable"), bins) if part.size]
    table = [(float(confidence[part].mean()), float(right[part].mean()), int(part.size)) for part in parts]
    ece = sum(count * abs(sure - share) for sure, share, count in table) / array.size
    return {"bins": table, "ece": ece, "nll": _nll(array, 1.0), "scale": _best_scale(array)}


def length_bias(gaps: Sequence[float], longer: Sequence[float]) -> dict[str, float]:
    """How a reward's choices go with length; `longer` is the better answer's length minus the worse one's.

    `prefers_longer` and `longer_is_better` are the shares of pairs of unequal lengths in which the reward and the
    labels prefer the longer answer. `better_longer` and `better_shorter` are the accuracies where the better answer is
    the longer and the shorter one, and `length_held` is their mean: what is left when length tells nothing.
    """
    array, lengths = np.asarray(gaps, dtype=np.float64), np.asarray(longer, dtype=np.float64)
    right = np.where(array == 0, 0.5, array > 0)
    above, below = lengths > 0, lengths < 0
    unequal = above | below
    prefers = np.where(above, right, 1 - right)[unequal]
    parts = [float(right[part].mean()) if part.any() else math.nan for part in (above, below)]
    return {
        "prefers_longer": float(prefers.mean()) if prefers.size else math.nan,
        "longer_is_better": float(above.sum() / unequal.sum()) if unequal.any() else math.nan,
        "better_longer": parts[0],
        "better_shorter": parts[1],
        "length_held": sum(parts) / 2,
    }


def agreement(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The share of pairs that two rewards order alike; a tie of one of them alone counts one half."""
    a, b = np.sign(np.asarray(ours)), np.sign(np.asarray(theirs))
    return float((1 - np.abs(a - b) / 2).mean()) if a.size else math.nan


def _best_scale(gaps: np.ndarray) -> float:
    """The factor in [0, 100] with the smallest nll, which is convex in it; 100 where no pair is ranked wrong."""
    from scipy.optimize import minimize_scalar

    return float(minimize_scalar(lambda scale: _nll(gaps, scale), bounds=(0, 100), method="bounded").x)


def _nll(gaps: np.ndarray, scale: float) -> float:
    return float(np.logaddexp(0, -scale * gaps).mean())


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(values / 2)) / 2
