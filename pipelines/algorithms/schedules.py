"""Learning rates over a training, refined by the gradient norms of an earlier one.

Defazio et al. 2023 (https://arxiv.org/abs/2310.07831), section 3. The bound on the last iterate of a training of T
steps with gradient norms G_1, ..., G_T is least for

    rate_t  ~  w_t sum_{p > t} w_p / sum_p w_p,    w_t = G_t^-2 for SGD (l2 norms), G_t^-1 for Adam (l1 norms),

which is linear decay to 0 where the norms stay the same, begins with a warm-up where they fall, and ends faster where
they fall at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:  # a plan asks for the settings alone
    import numpy as np

SMOOTHED = 0.1  # share of a training over which norms are smoothed by their median, as in the paper
SMALLEST = 0.01  # of the mean norm: a gradient of 0, as of a batch that taught nothing, has no weight 1 / 0


@dataclass(kw_only=True)
class ScheduleSettings:
    """A learning rate that follows the gradient norms of the steps of a training above, with `refine: $that_stage`.

    Its largest value is `train.learning_rate`, and the last step has 0. `weights: l1` weighs a step by 1 / norm, as
    for Adam, and `l2` by 1 / norm^2, as for SGD; both are of the norm that trainers log, the gradient's l2 norm
    before it is clipped. Norms are smoothed by their median over a tenth of the training. Those of a training of
    another length are stretched to this one. A schedule is made of `fewest` norms or more.
    """

    refine: str
    weights: Literal["l1", "l2"] = "l1"
    fewest: int = 10

    small: ClassVar[dict[str, Any]] = {"fewest": 1}  # a shrunk run takes a few steps

    def __post_init__(self) -> None:
        if self.fewest < 1:
            raise ValueError(f"fewest must be at least 1, got {self.fewest}")

    @property
    def power(self) -> int:
        """Of the norms in the weights' denominator."""
        return 1 if self.weights == "l1" else 2


def smoothed(norms: np.ndarray, share: float = SMOOTHED) -> np.ndarray:
    """The running median over `share` of all norms (T,), which are mirrored at both ends."""
    import numpy as np

    half = int(share * len(norms)) // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(norms, half, mode="reflect"), 2 * half + 1)
    return np.median(windows, axis=1)


def refined(norms: np.ndarray, power: int = 1) -> np.ndarray:
    """w_t sum_{p > t} w_p / sum_p w_p of each step, (T,), with weights norms^-power of mean 1.

    Norms that stay the same give (T - 1 - t) / T of step t, counted from 0.
    """
    import numpy as np

    weights = np.maximum(norms, SMALLEST * norms.mean()) ** -float(power)
    weights = weights / weights.mean()
    later = np.append(np.cumsum(weights[:0:-1])[::-1], 0.0)
    return weights * later / weights.sum()


def factors(places: np.ndarray, norms: np.ndarray, steps: int, power: int = 1) -> np.ndarray:
    """What the learning rate is multiplied by in each of `steps` steps, the largest of them 1.

    `norms` were those at `places`, shares of the earlier training in (0, 1], in their order.
    """
    import numpy as np

    rates = refined(np.interp(ends(steps), places, smoothed(norms)), power)
    return rates / rates.max()


def ends(steps: int) -> np.ndarray:
    """The share of a training that is done after each of its steps, (steps,)."""
    import numpy as np

    return np.arange(1, steps + 1) / steps
