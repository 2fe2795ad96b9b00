"""The state of an optimizer as an artifact, so that a later step's training can go on with it instead of from zero.

Moments are stored by the names of their parameters, in safetensors. The learning rate and its schedule are not: those
are the next step's own.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerState

from trimtab.pipelines.training import warm_starts


def save(trainer: Any, output: Path) -> None:
    """Writes the state beside a trained model, as `NAME/ENTRY` for each entry of each parameter's state."""
    optimizer = _inner(trainer.optimizer)
    names, kinds, tensors = _names(trainer), {}, {}
    for index, entries in optimizer.state_dict()["state"].items():
        for entry, value in entries.items():
            key = f"{names[index][0]}/{entry}"
            if not isinstance(value, torch.Tensor):
                kinds[key] = type(value).__name__  # a count, in some optimizers
            tensors[key] = torch.as_tensor(value).detach().cpu().contiguous()
    path = output / warm_starts.STATE
    path.parent.mkdir()
    save_file(tensors, path, metadata={**kinds, "optimizer": type(optimizer).__name__})


def load(trainer: Any, model: str) -> None:
    """Gives the trainer's optimizer, which has not stepped yet, the state that was kept beside `model`.

    Raises ValueError where it is another optimizer's or another model's.
    """
    path, optimizer = warm_starts.file_of(model), _inner(trainer.optimizer)
    with safe_open(path, framework="pt") as file:
        kinds = file.metadata()
    if kinds["optimizer"] != type(optimizer).__name__:
        name = type(optimizer).__name__
        raise ValueError(f"{path} is the state of {kinds['optimizer']}, and `train.optim` makes this one {name}")
    places = {name: (index, parameter) for index, (name, parameter) in _names(trainer).items()}
    state: dict[int, dict[str, Any]] = {}
    for key, value in load_file(path).items():
        name, _, entry = key.rpartition("/")
        index, parameter = places.get(name, (-1, None))
        if parameter is None or (value.dim() == parameter.dim() and value.shape != parameter.shape):
            raise ValueError(f"{path} is of another model: this one has no {name} of the shape {tuple(value.shape)}")
        state.setdefault(index, {})[entry] = value.item() if key in kinds else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class Warm(TrainerCallback):
    """Loads the state beside `model` where training begins, unless it goes on from a checkpoint, which has its own."""

    def __init__(self, trainer: Any, model: str):
        self.trainer, self.model = trainer, model

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            load(self.trainer, self.model)


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "optimizer", optimizer)  # accelerate's wraps torch's


def _names(trainer: Any) -> dict[int, tuple[str, Any]]:
    """Index in the optimizer's state -> name and parameter, whatever wraps the model."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = chain.from_iterable(group["params"] for group in trainer.optimizer.param_groups)
    return {index: (names[id(parameter)], parameter) for index, parameter in enumerate(parameters)}
