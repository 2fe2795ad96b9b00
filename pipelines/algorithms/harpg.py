"""Momentum that is carried along by Hessian-vector products, with steps of a given length: N-HARPG.

Fatkhullin et al. 2023 (arXiv 2302.01734). Of the gradients that momentum is a mean of, most were taken where the
policy is no longer. Here that mean moves with the policy, by what the gradient has changed on the way:

    theta^_t = theta_{t-1} + q (theta_t - theta_{t-1}),    q uniform in [0, 1]
    v_t = H(theta^_t) (theta_t - theta_{t-1})
    d_t = (1 - eta) (d_{t-1} + v_t) + eta g(theta_t),    theta_{t+1} = theta_t - lr d_t / ||d_t||

The mean of v_t over q is the difference of the gradients at both ends whatever the loss, where a look ahead
(optimizers/igt.py) is exact on quadratics alone. It takes two samples for each step, one at theta_t and one at
theta^_t, and of the second the Hessian of whole answers' probabilities, so no stage of a recipe has it: it is for
policies that are small, as a bandit's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def hessian_vector(loss: Tensor, values: Sequence[Tensor], direction: Sequence[Tensor]) -> list[Tensor]:
    """The Hessian of a loss by the values, times a direction of their shapes."""
    gradients = torch.autograd.grad(loss, values, create_graph=True)
    along = torch.stack([(one * way).sum() for one, way in zip(gradients, direction, strict=True)]).sum()
    return list(torch.autograd.grad(along, values))


class Harpg(torch.optim.Optimizer):
    """`eta` in (0, 1] is the weight of the newest gradient; with `carried: false` it is normalised momentum.

    The closure of `step` samples from the policy as its weights stand then, and returns minus the mean of
    pi(answer) / pi_now(answer) times the advantage, whose first two derivatives there are the expected reward's but
    for noise. It is called twice for each step, but for the first, and once without the correction.
    """

    def __init__(self, params: Any, lr: float = 1e-2, *, eta: float = 0.1, carried: bool = True, seed: int = 0):
        if not 0 < eta <= 1:
            raise ValueError(f"eta must be above 0 and at most 1, got {eta}")
        self.carried, self.drawn = carried, torch.Generator().manual_seed(seed)
        super().__init__(params, {"lr": lr, "eta": eta})

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]  # it cannot do without one
        """One step of all values."""
        loss = closure()
        places = [(group, value) for group in self.param_groups for value in group["params"]]
        values = [value for _, value in places]
        gradients, changes = torch.autograd.grad(loss, values), self._changes(closure, values)
        with torch.no_grad():
            for (group, value), gradient, change in zip(places, gradients, changes, strict=True):
                moment = self.state[value].setdefault("moment", gradient.clone())
                moment.add_(change).lerp_(gradient, group["eta"])
            norm = torch.stack([self.state[value]["moment"].norm() for value in values]).norm()
            for group, value in places:
                self.state[value]["move"] = self.state[value]["moment"] * (-group["lr"] / norm if norm else 0.0)
                value.add_(self.state[value]["move"])
        return loss.detach()

    def _changes(self, closure: Callable[[], Tensor], values: Sequence[Tensor]) -> list[Tensor]:
        """What the gradient has changed by the last step, from a sample at a random point of its way."""
        if not self.carried or not self.state:
            return [torch.zeros_like(value) for value in values]
        moves, ends = [self.state[value]["move"] for value in values], [value.detach().clone() for value in values]
        back = float(torch.rand((), generator=self.drawn, dtype=torch.float64))
        with torch.no_grad():
            for value, move in zip(values, moves, strict=True):
                value.sub_(move, alpha=back)
        changes = hessian_vector(closure(), values, moves)
        with torch.no_grad():
            for value, end in zip(values, ends, strict=True):
                value.copy_(end)
        return changes
