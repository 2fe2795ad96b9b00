"""A policy whose settings of drawing are moved, such as its temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trl

from trimtab.pipelines.sampling import generation
from trimtab.pipelines.sampling.moved import Moved

if TYPE_CHECKING:
    import numpy as np


def wrong(ranges: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """What is wrong with the settings that are to be moved, by their names."""
    told = {}
    for key, ends in ranges.items():
        allowed = generation.RANGES.get(key)
        if allowed is None:
            told[key] = f"is no number of `generate` (known: {', '.join(generation.RANGES)})"
        elif len(ends) != 2 or not ends[0] < ends[1]:
            told[key] = f"expected [lowest, highest], got {list(ends)}"
        elif any(end not in allowed for end in (map(round, ends) if allowed.kind is int else ends)):
            told[key] = f"expected ends that are {allowed}, got {list(ends)}"
    return told


class MovedSettings(Moved):
    """low + (high - low) v for each setting, v being kept between 0 and 1; it begins at what `generate` says."""

    def __init__(self, model: trl.ModelConfig, ranges: Mapping[str, Sequence[float]], generate: Mapping[str, Any]):
        import numpy as np

        super().__init__(model)
        self.ranges = ranges
        self.names = list(ranges)
        plain = {**generation.PLAIN, "max_new_tokens": generation.MAX_NEW_TOKENS}
        given = [generate.get(key) if generate.get(key) is not None else plain[key] for key in ranges]
        ends = np.array(list(ranges.values()), dtype=float)
        self.start = ((np.array(given, dtype=float) - ends[:, 0]) / (ends[:, 1] - ends[:, 0])).clip(0, 1)

    def at(self, vector: np.ndarray) -> Any:
        return self.policy

    def drawing(self, vector: np.ndarray) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for (key, (low, high)), share in zip(self.ranges.items(), vector.clip(0, 1).tolist(), strict=True):
            value = low + (high - low) * share
            settings[key] = round(value) if generation.RANGES[key].kind is int else value
        return settings

    def values(self, vector: np.ndarray) -> dict[str, float]:
        return self.drawing(vector)
