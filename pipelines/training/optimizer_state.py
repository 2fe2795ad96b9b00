"""The state of an optimizer as an artifact, so that a later step's training can go on with it instead of from zero.

What is kept of a parameter is stored by its name, in safetensors; what is counted for a group of them (a number of
steps, the sum of a schedule-free average's weights) in the file's metadata. The learning rate, its schedule and the
weight decay are not: those are the next step's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerState

from trimtab.pipelines.training import warm_starts

OF_TRAINING = ("params", "param_names", "lr", "initial_lr", "weight_decay")  # entries of a group that a step sets anew


def save(trainer: Any, output: Path) -> None:
    """Writes the state beside a trained model, as `NAME/ENTRY` for each entry of each parameter's state."""
    optimizer = _inner(trainer.optimizer)
    names, kinds, tensors = _names(trainer), {}, {}
    state = optimizer.state_dict()
    for index, entries in state["state"].items():
        for entry, value in entries.items():
            key = f"{names[index][0]}/{entry}"
            if not isinstance(value, torch.Tensor):
                kinds[key] = type(value).__name__  # a count, in some optimizers
            tensors[key] = torch.as_tensor(value).detach().cpu().contiguous()
    shapes = {name: list(parameter.shape) for name, parameter in names.values()}
    counted = [_counted(group, optimizer.defaults) for group in state["param_groups"]]
    path = output / warm_starts.STATE
    path.parent.mkdir()
    said = {"optimizer": type(optimizer).__name__, "shapes": json.dumps(shapes), "groups": json.dumps(counted)}
    save_file(tensors, path, metadata={**kinds, **said})


def load(trainer: Any, model: str) -> None:
    """Gives the trainer's optimizer, which has not stepped yet, the state that was kept beside `model`.

    Raises ValueError where it is another optimizer's or another model's.
    """
    path, optimizer = warm_starts.file_of(model), _inner(trainer.optimizer)
    with safe_open(path, framework="pt") as file:
        kinds = file.metadata()
    if kinds["optimizer"] != type(optimizer).__name__:
        name = type(optimizer).__name__
        raise ValueError(
            f"{path} is the state of {kinds['optimizer']}, and `optimizer` or `train.optim` makes this one {name}"
        )
    places = {name: (index, parameter) for index, (name, parameter) in _names(trainer).items()}
    groups, counted = optimizer.state_dict()["param_groups"], json.loads(kinds["groups"])
    for name, shape in json.loads(kinds["shapes"]).items():
        if name not in places or list(places[name][1].shape) != shape:
            raise ValueError(f"{path} is of another model: this one has no {name} of the shape {tuple(shape)}")
    if len(groups) != len(counted):
        raise ValueError(f"{path} is of {len(counted)} groups of parameters, and this training has {len(groups)}")
    state: dict[int, dict[str, Any]] = {}
    for key, value in load_file(path).items():
        name, _, entry = key.rpartition("/")
        state.setdefault(places[name][0], {})[entry] = value.item() if key in kinds else value
    together = [group | entries for group, entries in zip(groups, counted, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": together})


class Warm(TrainerCallback):
    """Loads the state beside `model` where training begins, unless it goes on from a checkpoint, which has its own."""

    def __init__(self, trainer: Any, model: str):
        self.trainer, self.model = trainer, model

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            load(self.trainer, self.model)


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "optimizer", optimizer)  # accelerate's wraps torch's


def _counted(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a group that are no longer what the optimizer began with."""
    moved = {key: value for key, value in group.items() if key not in OF_TRAINING and value != defaults.get(key)}
    return {key: value for key, value in moved.items() if isinstance(value, int | float)}


def _names(trainer: Any) -> dict[int, tuple[str, Any]]:
    """Index in the optimizer's state -> name and parameter, whatever wraps the model."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = chain.from_iterable(group["params"] for group in trainer.optimizer.param_groups)
    return {index: (names[id(parameter)], parameter) for index, parameter in enumerate(parameters)}
