"""M-FAC: natural gradients by an empirical Fisher matrix of the last gradients, for heads and adapters.

    optimizer: {class: m_fac, gradients: 512, damp: 1e-5, momentum: 0.9}

Frantar et al. 2021 (arXiv 2107.03356). With the last m gradients g_i in a ring buffer, a step follows F^-1 g,

    F = damp I + (1/m) sum_i g_i g_i^T,

without F: g is the newest of the g_i, so with G their rows, and c the column of (m damp I + G G^T)^-1 that belongs to
it, F^-1 g = m G^T c. Of a weight it keeps m numbers, and a step costs O(d m) for d weights, with O(m^2) for the
inverse, which is updated where a gradient takes another's place, and made anew every m steps. Until there are m
gradients, m is their number, and the inverse is made anew each time. The fit is for few weights, a head or adapters;
more than `limit_gb` of gradients are refused. The rate is another than AdamW's, and sharper: on the tiny world 1e-4
to 1e-3 learn and 1e-2 diverges. A warm-up helps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

BYTES = 4  # of a number
OF_ALL = ("products", "inverse")  # (m, m), float64, kept with the first parameter


class MFac(torch.optim.Optimizer):
    """All parameters together are one vector of d numbers. Raises ValueError where m of those are too many."""

    needs_whole: ClassVar[str] = "takes the products of whole gradients"
    small: ClassVar[dict[str, Any]] = {"gradients": 4}

    def __init__(
        self,
        params: Any,
        lr: float = 0.1,
        *,
        gradients: int = 512,
        damp: float = 1e-5,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        limit_gb: float = 4.0,
    ):
        if not gradients >= 1 or int(gradients) != gradients:
            raise ValueError(f"gradients is a number of them, 1 or more, got {gradients}")
        if not damp > 0:
            raise ValueError(f"damp must be above 0, got {damp}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is from 0 to below 1, got {momentum}")
        self.count, self.damp = int(gradients), damp
        counted = {"momentum": momentum, "steps": 0, "decoupled_weight_decay": True}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **counted})
        self.require_room(sum(value.numel() for value in self._values()), gradients=self.count, limit_gb=limit_gb)

    @staticmethod
    def require_room(weights: int, *, gradients: int = 512, limit_gb: float = 4.0, **others: Any) -> None:
        """Raises ValueError where the gradients of so many weights, in float32, are more than the limit."""
        asked = gradients * weights * BYTES / 1e9
        if asked > limit_gb:
            raise ValueError(
                f"{gradients} gradients of {weights:,} weights are {asked:.1f} GB, and limit_gb is {limit_gb:g}: keep "
                "fewer `gradients`, train adapters (model.use_peft) or fewer weights of them, or raise `limit_gb`"
            )

    @staticmethod
    def numbers_kept(options: Mapping[str, Any]) -> float:
        """The gradients, and the momentum."""
        return options.get("gradients", 512) + 1

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step along F^-1 g; a parameter without a gradient has one of 0."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        values = self._values()
        place = self.param_groups[0]["steps"] % self.count
        there = min(self.param_groups[0]["steps"] + 1, self.count)
        for value in values:
            state = self.state[value]
            if "gradients" not in state:
                state["gradients"] = value.new_zeros(self.count, value.numel())
                state["moment"] = torch.zeros_like(value)
            state["gradients"][place] = 0.0 if value.grad is None else value.grad.flatten()
        weights = self._weights(values, place, there)
        for group in self.param_groups:
            for value in group["params"]:
                state = self.state[value]
                along = (weights.to(value.dtype) @ state["gradients"][:there]).view_as(value)
                state["moment"].mul_(group["momentum"]).add_(along)
                value.mul_(1 - group["lr"] * group["weight_decay"]).add_(state["moment"], alpha=-group["lr"])
            group["steps"] += 1
        return loss

    @torch.no_grad()
    def load_state_dict(self, state_dict: Any) -> None:
        """As torch does it, but for the products and their inverse, which it would round as the weights are."""
        super().load_state_dict(state_dict)
        values = self._values()
        for key in OF_ALL:
            if key in (saved := state_dict["state"].get(0, {})):
                self.state[values[0]][key] = saved[key].to(values[0].device, copy=True)

    def _values(self) -> list[Tensor]:
        return [value for group in self.param_groups for value in group["params"]]

    def _weights(self, values: list[Tensor], place: int, there: int) -> Tensor:
        """What of each gradient in the buffer, `there` of them, is in F^-1 g, g being that at `place`."""
        state = self.state[values[0]]
        buffers = [self.state[value]["gradients"][:there] for value in values]
        products = torch.stack([(buffer @ buffer[place]).double() for buffer in buffers]).sum(0)  # (there,)
        if "products" not in state:
            state["products"] = products.new_zeros(self.count, self.count)
        kept = state["products"]  # G G^T, (m, m)
        change = products - kept[place, :there]
        kept[place, :there] = kept[:there, place] = products
        if there < self.count or place == self.count - 1 or "inverse" not in state:
            ridge = self.damp * there * torch.eye(there, dtype=torch.float64, device=kept.device)
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(kept[:there, :there] + ridge))
        else:
            inverse = replaced(state["inverse"], place, change)
        if there == self.count:
            state["inverse"] = inverse
        return there * inverse[:, place]


def replaced(inverse: Tensor, place: int, change: Tensor) -> Tensor:
    """The inverse of a symmetric matrix whose row and column `place` change by `change`, in O(m^2)."""
    halved = change.clone()
    halved[place] /= 2
    unit = torch.zeros_like(change)
    unit[place] = 1.0
    both = torch.stack([unit, halved], dim=1)  # the change is both @ swap @ both.T
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=inverse.dtype, device=inverse.device)
    moved = inverse @ both
    return inverse - moved @ torch.linalg.solve(swap + both.T @ moved, moved.T)
