"""A policy whose best of several answers is taken, by a sum of rewards of which the weights are moved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trl

from trimtab.pipelines.sampling.moved import Moved

if TYPE_CHECKING:
    import numpy as np


class MovedWeights(Moved):
    """w e^v for the weight w of each reward, whose sign stays."""

    def __init__(self, model: trl.ModelConfig, weights: Mapping[str, float]):
        import numpy as np

        super().__init__(model)
        self.weights = weights
        self.names = list(weights)
        self.start = np.zeros(len(weights))

    def at(self, vector: np.ndarray) -> Any:
        return self.policy

    def values(self, vector: np.ndarray) -> dict[str, float]:
        return {name: self.weights[name] * math.exp(v) for name, v in zip(self.names, vector.tolist(), strict=True)}

    def choosing(self, vector: np.ndarray) -> Mapping[str, float]:
        return self.values(vector)
