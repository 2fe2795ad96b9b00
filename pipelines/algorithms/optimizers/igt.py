"""Look-ahead momentum for gradients of a policy that samples for itself: N-PG-IGT, with steps of a given length.

    optimizer: {class: igt, eta: 0.1}

Fatkhullin et al. 2023 (arXiv 2302.01734). Momentum is a mean of gradients of which most were taken where the policy is
no longer. Here each is taken further on, at theta~_t = theta_t + (1 - eta) / eta (theta_t - theta_{t-1}), so that

    d_t = (1 - eta) d_{t-1} + eta g(theta~_t),    theta_{t+1} = theta_t - lr d_t / ||d_t||

has the gradient at theta_t itself for d_t where the loss is quadratic, whatever way was gone. A step has the length
`lr`, by the norm of all weights together: far above Adam's rates, which are of each weight. What is trained, and from
which a policy samples, is theta~; what is evaluated and kept is theta. Clipped gradients are biased again:
`train.max_grad_norm: 0`. `look_ahead: false` is normalised momentum as it is, the control, and `eta: 1` has none. It
keeps two numbers of each weight, as Adam does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch


class Igt(torch.optim.Optimizer):
    """`eta` in (0, 1] is the weight of the newest gradient. `train` and `eval` put theta~ and theta in their place."""

    needs_whole: ClassVar[str] = "divides by the norm of all weights"
    of_one_loss: ClassVar[str] = "divides by the norm of all gradients, in which critics' would drown the policy's"
    of_one_point: ClassVar[str] = "takes each gradient at another point, from which its rollout has to be sampled"

    def __init__(
        self, params: Any, lr: float = 1e-2, *, eta: float = 0.1, look_ahead: bool = True, weight_decay: float = 0.0
    ):
        if not 0 < eta <= 1:
            raise ValueError(f"eta must be above 0 and at most 1, got {eta}")
        self.ahead = (1 - eta) / eta if look_ahead else 0.0  # in steps
        super().__init__(
            params, {"lr": lr, "weight_decay": weight_decay, "eta": eta, "moved": 0.0, "decoupled_weight_decay": True}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of theta, and theta~ of the next one; a parameter without a gradient stays where it is."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        moved = [(group, value) for group, value in self._values() if value.grad is not None]
        for group, value in moved:
            state = self.state[value]
            if state:
                state["moment"].lerp_(value.grad, group["eta"])
            else:
                state["iterate"], state["moment"] = value.clone(), value.grad.clone()
        norms = [torch.linalg.vector_norm(self.state[value]["moment"].double()) for _, value in moved]
        norm = float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
        for group in self.param_groups:
            group["moved"] = group["lr"] / norm if norm else 0.0  # in units of the moment
        for group, value in moved:
            iterate = self.state[value]["iterate"]
            iterate.mul_(1 - group["lr"] * group["weight_decay"])
            iterate.add_(self.state[value]["moment"], alpha=-group["moved"])
        self.train()
        return loss

    @torch.no_grad()
    def train(self) -> None:
        """Puts theta~ in the place of the weights: between two steps the same, to the bit, whenever it is called."""
        for group, value in self._values():
            if state := self.state.get(value):
                value.copy_(state["iterate"]).add_(state["moment"], alpha=-self.ahead * group["moved"])

    @torch.no_grad()
    def eval(self) -> None:
        """Puts theta in the place of the weights."""
        for _, value in self._values():
            if state := self.state.get(value):
                value.copy_(state["iterate"])

    def _values(self) -> list[tuple[dict[str, Any], torch.Tensor]]:
        return [(group, value) for group in self.param_groups for value in group["params"]]
