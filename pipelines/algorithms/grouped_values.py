"""Values of completions, prompt by prompt, as arrays: 16 bytes of each, however many there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class GroupedValues:
    """The values of each group, group after group; `starts` is where each begins, `groups` which it is, ascending."""

    groups: np.ndarray
    starts: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, values: Any, groups: Any) -> GroupedValues:
        """The values with the group of each; NaN are left out."""
        values, groups = np.asarray(values, dtype=np.float64), np.asarray(groups)
        given = ~np.isnan(values)
        order = np.argsort(groups[given], kind="stable")
        names, starts = np.unique(groups[given][order], return_index=True)
        return cls(names, starts, values[given][order])

    @property
    def ends(self) -> np.ndarray:
        """Where each group ends."""
        return np.append(self.starts, len(self.values))[1:]

    def __iter__(self) -> Iterator[np.ndarray]:
        for start, end in zip(self.starts, self.ends, strict=True):
            yield self.values[start:end]

    @property
    def means(self) -> np.ndarray:
        """The mean of each group."""
        return np.fromiter((group.mean() for group in self), dtype=np.float64, count=len(self.groups))

    def among(self, groups: np.ndarray) -> GroupedValues:
        """The groups that are among these."""
        kept, sizes = np.isin(self.groups, groups), self.ends - self.starts
        values = self.values[np.repeat(kept, sizes)]
        return GroupedValues(self.groups[kept], np.cumsum(sizes[kept]) - sizes[kept], values)
