"""What several steps on one rollout maximise in the place of a clipped ratio: its gain, less a distance from it.

Target surrogates (Lavington et al. 2023, arXiv 2302.02607): what costs is the rollout and its scores, so the gradient
of the reward by what the policy says of each token is taken once, and followed for several steps with a distance from
the policy that sampled. The first of them is the plain gradient, whatever the distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # a plan asks for the settings alone
    from torch import Tensor

Distance = Literal["kl", "squared"]


@dataclass(frozen=True)
class Proximal:
    """The length of the step that a rollout's steps go towards, and the distance that holds them."""

    strength: float
    distance: Distance = "kl"


def surrogate(log_ratio: Tensor, advantages: Tensor, strength: float, distance: Distance) -> Tensor:
    """(N, T): the surrogate of each token, to be maximised, with the gradient of the advantage at a log ratio of 0.

    `log_ratio` (N, T) is log pi - log pi_old of the sampled tokens in nats. With `kl` it is pi / pi_old A minus KL(pi
    || pi_old) / strength, whose expectation is largest at pi_old exp(strength A) / Z (mirror descent); with `squared`
    the log-probabilities themselves are the targets: A (1 + log_ratio) - log_ratio^2 / (2 strength), which is largest
    at log pi_old + strength A.
    """
    if distance == "squared":
        return advantages * (1 + log_ratio) - log_ratio.square() / (2 * strength)
    ratio = log_ratio.exp()
    return ratio * advantages - (ratio * log_ratio - ratio + 1) / strength
