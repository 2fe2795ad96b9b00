"""How near weights are to the wall of the box that weight decay keeps them in, layer by layer.

Lion with a decoupled weight decay d minimises the loss under max |w| <= 1/d (Chen et al. 2023, arXiv 2310.05898), and
AdamW comes to the same box where its steps are as long (Xie and Li 2024, arXiv 2404.04454). So d is a radius: a weight
of a pretrained model that lies outside is drawn in by the training, whatever the loss says. max |w| * d is 1 at the
wall.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trimtab.pipelines.algorithms.layers import layer_number
from trimtab.pipelines.recording import tracking

DECOUPLED = ("decoupled_weight_decay", "weight_decouple")  # what torch's and pytorch_optimizer's groups say of it
logger = logging.getLogger(__name__)


class Box(TrainerCallback):
    """Logs max |w| * weight decay of each layer as `box/...`, and warns at the start of those outside of their box.

    It looks at the parameters whose optimizer says that their weight decay is decoupled, and above 0.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        outside = {layer: share for layer, share in self._shares().items() if share > 1}
        if outside and state.is_world_process_zero:
            worst = max(outside, key=lambda layer: outside[layer])
            decay, times = args.weight_decay, outside[worst]
            logger.warning(
                f"train.weight_decay ({decay:g}) keeps weights within {1 / decay:g}, and {worst} has one {times:.3g} "
                f"times as large: the training draws it in, whatever the loss says. Outside: {', '.join(outside)}. "
                f"A weight decay below {decay / times:.2g} leaves them alone"
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if control.should_log:
            shares = self._shares()
            if shares and state.is_world_process_zero:
                tracking.log({f"box/{layer}": share for layer, share in shares.items()}, state.global_step)

    def _shares(self) -> dict[str, float]:
        """Layer -> max |w| * weight decay, of all ranks."""
        largest: dict[str, torch.Tensor] = {}
        for layer, value, decay in _decayed(self.trainer):
            shard = value.to_local() if hasattr(value, "to_local") else value
            most = shard.abs().max() * decay if shard.numel() else shard.new_zeros(())
            largest[layer] = most.float() if layer not in largest else torch.maximum(largest[layer], most.float())
        if not largest:
            return {}
        accelerator = self.trainer.accelerator
        ours = torch.stack(list(largest.values())).to(accelerator.device)
        every = accelerator.gather(ours[None]).amax(0).tolist()
        return dict(zip(largest, every, strict=True))


def _decayed(trainer: Any) -> Iterator[tuple[str, torch.Tensor, float]]:
    """(layer, weights, weight decay) of the parameters that a decoupled weight decay shrinks."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    decays: Mapping[int, float] = {
        id(value): group["weight_decay"]
        for group in trainer.optimizer.param_groups
        for value in (group["params"] if any(group.get(key) for key in DECOUPLED) else ())
    }
    for name, value in model.named_parameters():
        if decays.get(id(value), 0) > 0:
            number = layer_number(name)
            module = name.rpartition(".")[0].rpartition(".")[2] or name
            yield module if number is None else f"layer_{number}", value.detach(), decays[id(value)]
