"""Several steps on a rollout, held by a distance from the policy that sampled it in the place of trl's clip."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from trimtab.pipelines.algorithms.target_surrogates import Proximal, surrogate


class ProximalSteps(Trainer):
    """A mixin for trl's GRPOTrainer: with `proximal`, the loss of a token is minus its surrogate.

    trl computes the policy's log-probabilities inside of its loss, and reads the advantages after that, which it
    multiplies with a clipped ratio: the surrogate divided by the ratio takes their place, and nothing is clipped.
    """

    model: Any
    epsilon_low: float
    epsilon_high: float
    _metrics: dict[str, dict[str, list[float]]]

    def __init__(self, *, proximal: Proximal | None = None, **kwargs: Any):
        self.proximal = proximal
        self.batch_held: dict[str, Any] | None = None  # whose loss is computed
        super().__init__(**kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        # where a rollout has one step, it is at the policy that sampled, and its surrogate the plain loss
        if self.proximal is None or not self.model.training or inputs.get("old_per_token_logps") is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        clip, self.batch_held = (self.epsilon_low, self.epsilon_high), {**inputs}
        self.epsilon_low = self.epsilon_high = math.inf
        try:
            return super().compute_loss(model, self.batch_held, return_outputs, num_items_in_batch)
        finally:
            (self.epsilon_low, self.epsilon_high), self.batch_held = clip, None

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple[Tensor, *tuple[Any, ...]]:
        logps, *others = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if self.batch_held is not None and self.proximal is not None:
            self._put_surrogate(self.batch_held, self.proximal, logps)
        return logps, *others

    def _put_surrogate(self, batch: dict[str, Any], proximal: Proximal, logps: Tensor) -> None:
        mask, advantages = batch["completion_mask"], batch["advantages"]
        log_ratio = (logps - batch["old_per_token_logps"]) * mask
        of_tokens = advantages.unsqueeze(1) if advantages.dim() == 1 else advantages
        held = surrogate(log_ratio, of_tokens, proximal.strength, proximal.distance)
        batch["advantages"] = held / log_ratio.exp()
        with torch.no_grad():
            distances = -surrogate(log_ratio, torch.zeros_like(log_ratio), 1.0, proximal.distance)
            mean = (distances * mask).sum() / mask.sum().clamp(min=1)
        self._metrics["train"]["proximal/distance"].append(mean.item())
