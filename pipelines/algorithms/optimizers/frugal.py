"""FRUGAL: moments for a part of the weights' space that changes, and signs of the gradient for the rest.

    optimizer: {class: frugal, density: 0.25, update_gap: 200, inactive_lr_scale: 0.1}

Zmushko et al. 2024 (arXiv 2411.07837). Of the weight matrices inside the model's blocks a share `density` has the
moments of AdamW (or Lion) for `update_gap` steps, and is then drawn anew with moments of 0. All other components of
the gradient g move the weights by lr * `inactive_lr_scale` * sign(g), which keeps nothing. Embeddings, norms, biases
and the head always have moments. With `density: 1` it is AdamW, and nothing is drawn; with 0 signSGD. What it keeps of
the matrices is 2 * density numbers of each weight in the place of AdamW's 2.

`split` says what a part is: whole `blocks` of the model, `columns` of each matrix, single `coordinates` of it, or the
leading singular vectors (`svd`) of the gradient at that step, which are kept as well. With `blocks` there are as many
as come nearest to the share, and at least one. The paper pre-trains with `inactive_lr_scale: 1` and fine-tunes with
0.1.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from trimtab.pipelines.algorithms.layers import layer_number

SPLITS = ("blocks", "columns", "coordinates", "svd")
INNERS = ("adamw", "lion")


class Frugal(torch.optim.Optimizer):
    """A group's `block` is the block of the model that its matrices are in; None where they always have moments."""

    # blocks, too: what FSDP shards of a state it takes up only where a new optimizer keeps as much of each weight
    needs_whole: ClassVar[str] = "keeps moments of a part of whole weights that is drawn anew"
    small: ClassVar[dict[str, Any]] = {"update_gap": 1}

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        *,
        density: float = 0.25,
        split: Literal["blocks", "columns", "coordinates", "svd"] = "blocks",
        inner: Literal["adamw", "lion"] = "adamw",
        update_gap: int = 200,
        inactive_lr_scale: float = 1.0,
        betas: tuple[float, float] | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 0,
    ):
        if not 0 <= density <= 1:
            raise ValueError(f"density is a share, from 0 to 1, got {density}")
        if split not in SPLITS or inner not in INNERS:
            raise ValueError(f"split is one of {', '.join(SPLITS)} and inner one of {', '.join(INNERS)}")
        if not update_gap >= 1 or int(update_gap) != update_gap:
            raise ValueError(f"update_gap is a number of steps, 1 or more, got {update_gap}")
        if not inactive_lr_scale >= 0:
            raise ValueError(f"inactive_lr_scale must be at least 0, got {inactive_lr_scale}")
        betas = betas or ((0.9, 0.999) if inner == "adamw" else (0.9, 0.99))
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas are two numbers from 0 to below 1, got {betas}")
        self.density, self.split, self.update_gap, self.seed = density, split, int(update_gap), seed
        self.scale, self.update = inactive_lr_scale, _adamw if inner == "adamw" else _lion
        steps_of = {"betas": tuple(betas), "eps": eps, "block": None, "steps": 0, "decoupled_weight_decay": True}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **steps_of})

    @staticmethod
    def numbers_kept(options: Mapping[str, Any]) -> float:
        """Of a weight in a block's matrix; of embeddings and the head it keeps what it does at `density: 1`."""
        return options.get("density", 0.25) * (1 if options.get("inner") == "lion" else 2)

    @staticmethod
    def grouped(groups: Iterable[Mapping[str, Any]], names: Mapping[Tensor, str]) -> list[dict[str, Any]]:
        """The groups, cut by the blocks that their matrices are in."""
        cut: dict[tuple[int, int | None], dict[str, Any]] = {}
        for number, group in enumerate(groups):
            for value in group["params"]:
                block = layer_number(names[value]) if value.dim() >= 2 else None
                cut.setdefault((number, block), {**group, "params": [], "block": block})["params"].append(value)
        return list(cut.values())

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, from the gradients of the parameters that have one."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        chosen = self._blocks_drawn()
        for number, group in enumerate(self.param_groups):
            values = [value for value in group["params"] if value.grad is not None]
            if group["block"] is not None and self.density < 1 and group["steps"] % self.update_gap == 0:
                for value in group["params"]:
                    self.state.pop(value, None)
            if group["block"] is None or self.density == 1 or group["block"] in chosen:
                self.update(group, values, [value.grad for value in values], [self.state[value] for value in values])
            else:
                for place, value in enumerate(values):
                    self._step_split(group, value, f"{self.seed} {number} {place} {group['steps'] // self.update_gap}")
            group["steps"] += 1
        return loss

    def _blocks_drawn(self) -> set[int]:
        """The blocks whose matrices have moments now; none where matrices are split themselves."""
        blocks = sorted({group["block"] for group in self.param_groups if group["block"] is not None})
        if self.split != "blocks" or not blocks or self.density == 0:
            return set()
        count = max(1, round(self.density * len(blocks)))
        draw = self.param_groups[0]["steps"] // self.update_gap
        return set(random.Random(f"{self.seed} {draw}").sample(blocks, count))

    def _step_split(self, group: dict[str, Any], value: Tensor, draw: str) -> None:
        """Moves a matrix by the inner optimizer in its part of the space, and by signs in the rest."""
        weight, gradient = (each.view(-1, each.shape[-1]) for each in (value, value.grad.contiguous()))
        part = self._part(gradient, value, draw) if self.split != "blocks" and self.density > 0 else None
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        if part is None:
            weight.add_(gradient.sign(), alpha=-group["lr"] * self.scale)
            return
        inside = part.inside(gradient)
        change = torch.zeros_like(inside)
        self.update({**group, "weight_decay": 0.0}, [change], [inside], [self.state[value]])
        weight.add_(part.rest(gradient, inside).sign(), alpha=-group["lr"] * self.scale)
        part.add(weight, change)

    def _part(self, gradient: Tensor, value: Tensor, draw: str) -> Columns | Coordinates | Span | None:
        """The part of a matrix's space that has moments; None where the share comes to nothing."""
        rows, columns = gradient.shape
        if self.split == "svd":
            rank = round(self.density * min(rows, columns))
            state = self.state[value] if rank else {}
            if rank and "basis" not in state:
                left, _, right = torch.linalg.svd(gradient.float(), full_matrices=False)
                state["basis"] = (
                    (left[:, :rank] if rows <= columns else right[:rank].T).to(gradient.dtype).contiguous()
                )
            return Span(state["basis"], rows <= columns) if rank else None
        if self.split == "columns":
            drawn = random.Random(draw).sample(range(columns), round(self.density * columns))
            return Columns(torch.tensor(sorted(drawn), device=gradient.device)) if drawn else None
        count = round(self.density * rows * columns)
        return Coordinates(_scattered(rows * columns, count, draw, gradient.device)) if count else None


class Columns:
    """Some columns of a matrix."""

    def __init__(self, index: Tensor):
        self.index = index

    def inside(self, gradient: Tensor) -> Tensor:
        """The part's components of a gradient, packed."""
        return gradient.index_select(1, self.index)

    def rest(self, gradient: Tensor, inside: Tensor) -> Tensor:
        """A gradient without them."""
        return gradient.index_fill(1, self.index, 0.0)

    def add(self, weight: Tensor, change: Tensor) -> None:
        """Adds packed components to a matrix."""
        weight.index_add_(1, self.index, change)


class Coordinates:
    """Some entries of a matrix, by their places in it."""

    def __init__(self, index: Tensor):
        self.index = index

    def inside(self, gradient: Tensor) -> Tensor:
        """The part's components of a gradient, packed."""
        return gradient.flatten().index_select(0, self.index)

    def rest(self, gradient: Tensor, inside: Tensor) -> Tensor:
        """A gradient without them."""
        return gradient.flatten().index_fill(0, self.index, 0.0).view_as(gradient)

    def add(self, weight: Tensor, change: Tensor) -> None:
        """Adds packed components to a matrix."""
        weight.view(-1).index_add_(0, self.index, change)


class Span:
    """The span of the orthonormal columns of `basis`, on the rows' side of a matrix or on the columns'."""

    def __init__(self, basis: Tensor, of_rows: bool):
        self.basis, self.of_rows = basis, of_rows

    def inside(self, gradient: Tensor) -> Tensor:
        """The part's components of a gradient, packed."""
        return self.basis.T @ gradient if self.of_rows else gradient @ self.basis

    def rest(self, gradient: Tensor, inside: Tensor) -> Tensor:
        """A gradient without them."""
        return gradient - self._whole(inside)

    def add(self, weight: Tensor, change: Tensor) -> None:
        """Adds packed components to a matrix."""
        weight.add_(self._whole(change))

    def _whole(self, inside: Tensor) -> Tensor:
        return self.basis @ inside if self.of_rows else inside @ self.basis.T


def _scattered(size: int, count: int, draw: str, device: torch.device) -> Tensor:
    """So many different places below `size`, the same for the same `draw`: kept, they would cost what moments do."""
    drawn = random.Random(draw)
    stride = next(step for step in iter(lambda: drawn.randrange(1, size + 1), 0) if math.gcd(step, size) == 1)
    return (torch.arange(count, device=device) * stride + drawn.randrange(size)) % size


def _adamw(
    group: Mapping[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[dict[str, Tensor]]
) -> None:
    """Torch's own step of AdamW."""
    for weight, state in zip(weights, states, strict=True):
        if "step" not in state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
    if weights:
        first, second, steps = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step"))
        settings = {"lr": group["lr"], "weight_decay": group["weight_decay"], "eps": group["eps"]}
        beta1, beta2 = group["betas"]
        adamw(weights, gradients, first, second, [], steps, amsgrad=False, beta1=beta1, beta2=beta2, maximize=False,
              **settings)  # fmt: skip


def _lion(
    group: Mapping[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[dict[str, Tensor]]
) -> None:
    """A step of Lion: the sign of the moment that leans to the gradient (Chen et al. 2023, arXiv 2302.06675)."""
    beta1, beta2 = group["betas"]
    for weight, gradient, state in zip(weights, gradients, states, strict=True):
        moment = state.setdefault("exp_avg", torch.zeros_like(weight))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(moment.lerp(gradient, 1 - beta1).sign_(), alpha=-group["lr"])
        moment.lerp_(gradient, 1 - beta2)
