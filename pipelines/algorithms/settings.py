"""Settings compared: means with errors over seeds and prompts, paired differences, and Holm's correction.

A value y_sp belongs to a seed s and a prompt p, y_sp = mu + a_s + b_p + e_sp, all three of them drawn at random. With
S seeds and P prompts, and the mean squares of seeds, prompts and what is left, the variance of the mean is

    (MS_s + MS_p - MS_e) / (S P)

of which E[MS_s] = var(e) + P var(a) and E[MS_p] = var(e) + S var(b). It is never less than MS_s / (S P) or
MS_p / (S P). Its degrees of freedom are S - 1 where MS_s > MS_e, so that prompts do not make up for seeds, and else
Satterthwaite's (1946). Holm's correction (1979) bounds the probability of one or more false differences among all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a plan of what is done imports it too, and needs no numbers
    import numpy as np

LEVEL = 0.05
SHARE = 0.5  # of prompts that two seeds or settings must have in common to be taken as asked the same

Cells = Mapping[str, Mapping[str, float]]  # seed -> prompt -> value; a value of no prompt has the one prompt ""


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error, nan where one value says nothing of it; `degrees` of freedom are the error's."""

    mean: float
    stderr: float
    degrees: float
    seeds: int
    prompts: int  # that all seeds were asked; 0 where the seeds alone make up the error


@dataclass(frozen=True)
class Difference:
    """`probability` is that of a difference as large where there is none, by a two-sided t test; nan is unknown."""

    mean: float
    stderr: float
    probability: float
    paired: bool

    @property
    def is_none(self) -> bool:
        """Whether every value of one setting is the other's."""
        return self.paired and self.mean == 0 and not self.stderr > 0


def estimate(cells: Cells) -> Estimate:
    """The mean over seeds and prompts. Raises ValueError without a value."""
    import numpy as np

    seeds = len(cells)
    if not seeds or not all(cells.values()):
        raise ValueError("every seed needs a value")
    prompts = _common(list(cells.values()))
    if prompts is None or len(prompts) < 2:
        means = np.array([np.mean(list(values.values())) for values in cells.values()])
        mean, stderr = _of_independent(means)
        return Estimate(mean, stderr, seeds - 1, seeds, 0)
    table = np.array([[values[prompt] for prompt in prompts] for values in cells.values()])
    if seeds == 1:
        mean, stderr = _of_independent(table[0])
        return Estimate(mean, stderr, len(prompts) - 1, 1, len(prompts))
    return _of_table(table)


def difference(ours: Cells, theirs: Cells) -> Difference:
    """That of two settings: paired where both have the same seeds and these were asked the same prompts."""
    paired = _paired(ours, theirs)
    if paired is not None:
        gap = estimate(paired)
        return Difference(gap.mean, gap.stderr, _probability(gap.mean, gap.stderr, gap.degrees), True)
    one, other = estimate(ours), estimate(theirs)
    variances = one.stderr**2, other.stderr**2
    stderr = math.sqrt(sum(variances))
    parts = [variance**2 / max(side.degrees, 1) for variance, side in zip(variances, (one, other), strict=True)]
    degrees = stderr**4 / sum(parts) if sum(parts) > 0 else 1.0  # Welch's
    mean = one.mean - other.mean
    return Difference(mean, stderr, _probability(mean, stderr, degrees), False)


def holm(probabilities: Sequence[float]) -> list[float]:
    """The probabilities corrected for their number; those that are nan stay so, and count for none."""
    known = sorted((p, index) for index, p in enumerate(probabilities) if not math.isnan(p))
    corrected = list(probabilities)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[index] = largest
    return corrected


def _of_table(table: np.ndarray) -> Estimate:
    """The estimate of values by seeds (rows) and prompts (columns), two or more of both."""
    seeds, prompts = table.shape
    mean = table.mean()
    of_seeds, of_prompts = table.mean(1), table.mean(0)
    rest = table - of_seeds[:, None] - of_prompts[None, :] + mean
    degrees = seeds - 1, prompts - 1, (seeds - 1) * (prompts - 1)
    squares = (
        prompts * ((of_seeds - mean) ** 2).sum() / degrees[0],
        seeds * ((of_prompts - mean) ** 2).sum() / degrees[1],
        (rest**2).sum() / degrees[2],
    )
    both = squares[0] + squares[1] - squares[2]
    variance = max(both, squares[0], squares[1])
    if squares[0] > squares[2] or not variance:
        freedom = float(degrees[0])
    else:
        freedom = variance**2 / sum(square**2 / of for square, of in zip(squares, degrees, strict=True))
    return Estimate(float(mean), math.sqrt(variance / (seeds * prompts)), freedom, seeds, prompts)


def _of_independent(values: np.ndarray) -> tuple[float, float]:
    stderr = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(stderr)


def _common(asked: Sequence[Mapping[str, float]]) -> list[str] | None:
    """The prompts of all, in order; None where these are too few of those that one was asked."""
    shared = [prompt for prompt in asked[0] if all(prompt in other for other in asked[1:])]
    return shared if len(shared) >= SHARE * max(map(len, asked)) else None


def _paired(ours: Cells, theirs: Cells) -> dict[str, dict[str, float]] | None:
    """The differences value by value; None where seeds or prompts are others."""
    if set(ours) != set(theirs):
        return None
    gaps: dict[str, dict[str, float]] = {}
    for seed, values in ours.items():
        prompts = _common([values, theirs[seed]])
        if not prompts:
            return None
        gaps[seed] = {prompt: values[prompt] - theirs[seed][prompt] for prompt in prompts}
    return gaps


def _probability(mean: float, stderr: float, degrees: float) -> float:
    from scipy.stats import t

    if math.isnan(stderr):
        return math.nan
    if stderr == 0:
        return float(mean == 0)
    return float(2 * t.sf(abs(mean) / stderr, degrees))
