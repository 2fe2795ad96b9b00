"""Metrics that do not depend on how batches cut a step or an evaluation, where trl averages those of batches."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trimtab.pipelines.trainers.rollouts import nanstd


class MergedMetrics:
    """Numbers of several batches, each with its weight, that become one.

    Names that end in `_min` or `_max`, or begin with `min_` or `max_`, become the least or the greatest of theirs, all
    others the weighted mean.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def add(self, name: str, value: float, weight: float) -> None:
        """A number that is none, as of a batch without such a case, is left out."""
        if not math.isnan(value) and weight > 0:
            self._values[name].append((value, weight))

    def take(self, logged: Mapping[str, list[float]], before: Mapping[str, int], weight: float) -> None:
        """Takes out of trl's lists what was added since they had the lengths `before`."""
        for name, values in logged.items():
            start = before.get(name, 0)
            for value in values[start:]:
                self.add(name, value, weight)
            del values[start:]

    def merge(self) -> dict[str, float]:
        """The merged numbers, after which nothing is left here."""
        merged = {}
        for name, pairs in self._values.items():
            numbers = [value for value, _ in pairs]
            if name.endswith("_min") or name.startswith("min_"):
                merged[name] = min(numbers)
            elif name.endswith("_max") or name.startswith("max_"):
                merged[name] = max(numbers)
            else:
                merged[name] = sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)
        self._values.clear()
        return merged


class EvaluatedCompletions:
    """The completions of an evaluation, whose metrics are taken of all of them together."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []
        self.tokens = 0.0  # of the batch that was added last

    def add(self, lengths: Tensor, ended: Tensor, rewards: Tensor) -> None:
        """Lengths (N,) in tokens, whether each has an end (N,), and the rewards (N, K), NaN where none was given."""
        self._batches.append((lengths.cpu(), ended.cpu(), rewards.cpu()))
        self.tokens = float(lengths.sum())

    def merge(self, names: Sequence[str], weights: Tensor, group: int) -> dict[str, float]:
        """Metrics by trl's names, of rewards with these names and weights (K,); after which nothing is left here."""
        if not self._batches:
            return {}
        lengths, ended, rewards = map(torch.cat, zip(*self._batches, strict=True))
        self._batches.clear()
        metrics = {"completions/clipped_ratio": 1 - ended.float().mean()}
        whole = lengths[ended] if ended.any() else torch.zeros_like(lengths)
        for infix, counted in (("", lengths.float()), ("terminated_", whole.float())):
            metrics[f"completions/mean_{infix}length"] = counted.mean()
            metrics[f"completions/min_{infix}length"] = counted.min()
            metrics[f"completions/max_{infix}length"] = counted.max()
        total = (rewards * weights.to(rewards)).nansum(1).masked_fill(rewards.isnan().all(1), torch.nan)
        metrics["reward"], metrics["reward_std"] = total.nanmean(), nanstd(total, 0)[0]
        for name, column in zip(names, rewards.T, strict=True):
            metrics[f"rewards/{name}/mean"], metrics[f"rewards/{name}/std"] = column.nanmean(), nanstd(column, 0)[0]
        spread = nanstd(total.view(-1, group), 1)
        metrics["frac_reward_zero_std"] = torch.isclose(spread, torch.zeros_like(spread)).float().mean()
        return {name: float(value) for name, value in metrics.items()}
