"""Whether weights are numbers: those of a trainer before a checkpoint counts, and those that were written.

A learning rate that is too high, or a save that gathered half of what was sharded, leaves files like any others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from trimtab.pipelines.trainers.seams.engines import local_weights


def require_numbers(trainer: Any, step: int) -> None:
    """Raises FloatingPointError, on every rank, where a trained weight of any rank is NaN or infinite."""
    flags = [torch.isfinite(value).all() for value in local_weights(trainer)]
    accelerator = trainer.accelerator
    broken = torch.tensor(0.0, device=accelerator.device)
    if flags:
        broken += (~torch.stack(flags)).any()
    if accelerator.reduce(broken).item():
        raise FloatingPointError(
            f"a weight is not a number after step {step}: this checkpoint is not to be gone on from. Lower "
            f"train.learning_rate ({trainer.args.learning_rate}); complete checkpoints in {trainer.args.output_dir} "
            "are from before"
        )


def check_written(folder: Path, parameters: int) -> None:
    """Looks at the weights that were saved in a folder, tensor by tensor.

    Raises FloatingPointError where one is NaN or infinite, and ValueError where one is empty or there are fewer than
    `parameters` numbers, as when the shares of some ranks are missing.
    """
    count = 0
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (it is no dictionary)
                value = file.get_tensor(name)
                if not value.numel():
                    raise ValueError(f"{path}: {name} is empty: the share of a rank was not gathered")
                if value.is_floating_point() and not torch.isfinite(value).all():
                    raise FloatingPointError(f"{path}: {name} has a value that is not a number; nothing is published")
                count += value.numel()
    if count < parameters:
        raise ValueError(f"{folder} has {count:,} of the model's {parameters:,} numbers: a save has lost some")
