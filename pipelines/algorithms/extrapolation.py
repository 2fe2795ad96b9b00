"""Momentum on the weights of models: theta = new + a (new - previous), tensor by tensor, on folders of safetensors.

See pipelines/algorithms/momentum.py for what it is good for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from trimtab.pipelines.algorithms.weights import FLOATS, Weights, rewriting


def match(new: Weights, previous: Weights) -> dict[str, str]:
    """The name in `previous` of every tensor of `new`.

    Of tied weights a folder holds one name or both. So a name that only one folder has is no mistake when its matrix
    equals another one there that both have. Raises ValueError for other missing names, for shapes and for kinds.
    """
    names = {name: name for name in new.tensors if name in previous.tensors}
    _twins(previous, new, names)  # what only `previous` has needs no name in it: raises where it is not tied
    names |= _twins(new, previous, names)
    for name, twin in names.items():
        a, b = new.tensors[name], previous.tensors[twin]
        if a.shape != b.shape or not (a.dtype == b.dtype or {a.dtype, b.dtype} <= FLOATS.keys()):
            raise ValueError(
                f"{name} is {a.dtype} {a.shape} in {new.folder}, {b.dtype} {b.shape} in {previous.folder}"
            )
    return names


def _twins(one: Weights, other: Weights, both: Iterable[str]) -> dict[str, str]:
    """For every tensor that only `one` has, the name that both have of an equal one. Raises ValueError without one."""
    twins, missing = {}, []
    for name in one.tensors:
        if name not in other.tensors:
            twin = next((twin for twin in both if one.same(name, twin)), None)
            if twin is None:
                missing.append(name)
            else:
                twins[name] = twin
    if missing:
        raise ValueError(f"{other.folder} lacks {len(missing)} tensors of {one.folder}: {', '.join(missing[:3])}")
    return twins


def extrapolate(new: Path, previous: Path, out: Path, momentum: float) -> dict[str, float]:
    """Writes new + momentum (new - previous) into the folder `out`, in float32, with everything else as in `new`.

    Momentum 0 copies `new` bit by bit. Memory is some megabytes, whatever the model's size.
    Returns step_norm = ||new - previous||, weight_norm = ||new||, relative_step (their quotient) and tensors (number).
    Raises ValueError, and leaves nothing, where the models do not match (see `match`), a weight is not finite, tensors
    differ that are no floats, and where the step drowns in the rounding of a 16-bit `new`.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be at least 0 and below 1, got {momentum}")
    ours, theirs = Weights(new), Weights(previous)
    names = match(ours, theirs)
    norms = _SquaredNorms()

    def pieces(name: str) -> Iterator[torch.Tensor]:
        kind, other_kind = (FLOATS.get(entry.dtype) for entry in (ours.tensors[name], theirs.tensors[names[name]]))
        moved = length = 0.0
        for piece, other in zip(ours.pieces(name), theirs.pieces(names[name]), strict=True):
            if kind is None:
                if not torch.equal(piece, other):
                    raise ValueError(f"{name} is {ours.tensors[name].dtype} and differs: only floats are extrapolated")
                yield piece
                continue
            values = piece.float()
            length += _square(values, name, new)
            back = other.float().sub_(values)
            moved += _square(back, name, previous)
            yield values.sub_(back, alpha=momentum) if momentum else piece
        norms.add(moved, length, kind, other_kind)

    with rewriting(ours, Path(out), pieces, widen=momentum > 0):
        # the measured step^2 is true^2 + noise^2, and the true must prevail
        if momentum and norms.coarse < 2 * norms.noise:
            raise ValueError(
                f"the step from {previous} to {new} measures {math.sqrt(norms.coarse):.3g}, and rounding to 16 bits "
                f"makes {math.sqrt(norms.noise):.3g} of it: train and save in float32 (`model: {{dtype: float32}}`)"
            )
    return {
        "step_norm": math.sqrt(norms.step),
        "weight_norm": math.sqrt(norms.size),
        "relative_step": math.sqrt(norms.step / norms.size) if norms.size else 0.0,
        "tensors": len(names),
    }


@dataclass
class _SquaredNorms:
    """Of the step and of the weights; `coarse` is the step of 16-bit tensors, `noise` what rounding adds to it."""

    step: float = 0.0
    size: float = 0.0
    coarse: float = 0.0
    noise: float = 0.0

    def add(self, moved: float, length: float, kind: torch.dtype | None, other_kind: torch.dtype | None) -> None:
        """A tensor of squared norm `length` that has moved by `moved`, and its dtypes in the two models.

        Rounding to floats that lie u apart adds an error of variance u^2 / 12; u^2 is 0.54 (eps x)^2 on average over
        mantissas even in the logarithm. A float32 `new` was trained from a 16-bit `previous`: that step is exact.
        """
        self.step, self.size = self.step + moved, self.size + length
        if moved and kind is not None and kind.itemsize == 2:
            self.coarse += moved
            coarse_kinds = [dtype for dtype in (kind, other_kind) if dtype is not None and dtype.itemsize == 2]
            self.noise += sum(0.54 / 12 * torch.finfo(dtype).eps ** 2 * length for dtype in coarse_kinds)


def _square(values: torch.Tensor, name: str, folder: Path) -> float:
    total = torch.dot(values.view(-1), values.view(-1)).item()
    if not math.isfinite(total) and not values.isfinite().all():  # the first is cheap, and looks at every number
        raise ValueError(f"{name} in {folder} is not finite everywhere")
    return total if math.isfinite(total) else values.double().square().sum().item()
