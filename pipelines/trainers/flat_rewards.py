"""Rewards that tell a prompt's completions apart, and those that do not: what is logged of them, and how it is said.

A group whose scores are all equal, or of which fewer than two are there, teaches nothing. Where that is so in every
rollout, the steps of a training were taken for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

PATIENCE = 10  # rollouts without anything to learn, in a row, until it is said again


def shares(scores: Tensor, names: Sequence[str], group: int) -> dict[str, float]:
    """`rewards/<name>/abstained`, of completions, and `rewards/<name>/flat`, of groups, from scores (N, K)."""
    grouped = scores.view(-1, group, len(names))
    highest = grouped.nan_to_num(-math.inf).amax(dim=1)
    lowest = torch.where(grouped.isnan(), math.inf, grouped).amin(dim=1)
    flat = (highest <= lowest).double().mean(dim=0).tolist()  # also where nothing was scored
    absent = scores.isnan().double().mean(dim=0).tolist()
    logged = {f"rewards/{name}/abstained": share for name, share in zip(names, absent, strict=True)}
    return logged | {f"rewards/{name}/flat": share for name, share in zip(names, flat, strict=True)}


def why(history: Sequence[Mapping[str, Any]], names: Sequence[str], *, across_prompts: bool) -> str | None:
    """What was wrong with every reward in every logged step; None where one of them told something apart.

    With `across_prompts`, as critics do it, a reward also teaches where only completions of different prompts differ.
    """
    said = []
    for name in names:
        rows = [row for row in history if f"rewards/{name}/flat" in row]
        if not rows or any(row[f"rewards/{name}/flat"] < 1 for row in rows):
            return None
        means = {row[f"rewards/{name}/mean"] for row in rows} - {None}  # trl's word for that of no score
        is_constant = len(means) <= 1 and not any(row[f"rewards/{name}/std"] for row in rows)
        if across_prompts and not is_constant:
            return None
        said.append(_said(name, rows, means, is_constant))
    return "; ".join(said)


def _said(name: str, rows: Sequence[Mapping[str, Any]], means: set[float], is_constant: bool) -> str:
    if not means:
        return f"reward {name!r} abstained from every completion of every step"
    abstained = sum(row[f"rewards/{name}/abstained"] for row in rows) / len(rows)
    left_out = f", and abstained from {abstained:.0%}" if abstained else ""
    if is_constant:
        return f"reward {name!r} gave every completion of every step the same {means.pop():.4g}{left_out}"
    return f"reward {name!r} gave all completions of a prompt the same, in every step{left_out}"


class FlatRollouts:
    """Counts rollouts in which no reward tells anything apart, and says so at the first and after PATIENCE."""

    def __init__(self, names: Sequence[str]):
        self.names, self.running = names, 0

    def warning(self, logged: Mapping[str, float]) -> str | None:
        """What to warn of after a rollout with these shares."""
        is_flat = all(logged[f"rewards/{name}/flat"] == 1 for name in self.names)
        self.running = self.running + 1 if is_flat else 0
        if self.running not in (1, PATIENCE):
            return None
        which = ", ".join(map(repr, self.names))
        count = "this rollout has" if self.running == 1 else f"{PATIENCE} rollouts in a row have"
        return f"{count} nothing to learn from: {which} told no two completions of a prompt apart"
