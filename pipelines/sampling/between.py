"""A policy whose layers lie anywhere on the lines from one model's weights to another's."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import trl

from trimtab.pipelines.algorithms.layers import layer_number
from trimtab.pipelines.sampling.moved import Moved

if TYPE_CHECKING:
    import numpy as np

REST = "rest"  # what is in no layer: embeddings, the last norm and the head


class Between(Moved):
    """W_l = base_l + s_l (model_l - base_l), s = 1 being the model. Both are in memory in float32 beside the policy.

    `names` are the layers that differ. Raises ValueError for models of other shapes, and for two that are the same.
    """

    def __init__(self, model: trl.ModelConfig, base: str):
        import numpy as np

        from trimtab.pipelines.sampling import transformers_engine

        super().__init__(model)
        start = transformers_engine.load(dataclasses.replace(model, model_name_or_path=base))
        origins = dict(start.named_parameters())
        weights = dict(self.policy.named_parameters())
        if {name: weight.shape for name, weight in weights.items()} != {n: w.shape for n, w in origins.items()}:
            raise ValueError(f"{base} has weights of other shapes than {model.model_name_or_path}: name its start")
        self.lines: dict[str, tuple[Any, Any]] = {}
        for name, weight in weights.items():
            origin = origins[name].detach().float()
            change = weight.detach().float() - origin
            if bool(change.any()):
                self.lines[name] = (origin, change)
        if not self.lines:
            raise ValueError(f"{base} is {model.model_name_or_path} itself: nothing lies between them")
        self.names = sorted({_layer(name) for name in self.lines}, key=lambda name: (name == REST, len(name), name))
        self.start = np.ones(len(self.names))

    def at(self, vector: np.ndarray) -> Any:
        import torch

        of_layer = self.values(vector)
        weights = dict(self.policy.named_parameters())
        with torch.no_grad():
            for name, (origin, change) in self.lines.items():
                weights[name].copy_(origin + of_layer[_layer(name)] * change)
        return self.policy


def _layer(name: str) -> str:
    """The word for the layer that a weight is of."""
    number = layer_number(name)
    return REST if number is None else str(number)
