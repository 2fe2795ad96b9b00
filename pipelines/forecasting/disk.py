"""What a step writes: its artifact, and the checkpoints that stay beside it until they are pruned."""

from __future__ import annotations

from typing import Any

from trimtab.pipelines.forecasting.architectures import Architecture
from trimtab.pipelines.forecasting.memory import state_bytes, trained_parameters
from trimtab.pipelines.forecasting.setting import Setting
from trimtab.pipelines.forecasting.work import Work

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
BESIDE = 1 << 20  # a tokenizer, metrics, curves


def artifact(stage: Any, work: Work) -> float:
    """The bytes of the artifact, in the dtype in which the stage says that a model is kept."""
    leaves = work.leaves
    if not isinstance(leaves, Architecture):
        return BESIDE + leaves
    return BESIDE + leaves.parameters * BYTES.get(str(getattr(stage, "dtype", "")), leaves.bytes)


def checkpoints(stage: Any, work: Work, setting: Setting) -> tuple[float, float]:
    """The bytes of checkpoints that a rank writes in a training, and of those that are kept, of all ranks.

    Where everything is split over the ranks, each writes its share.
    """
    train = getattr(stage, "train", None)
    if train is None or not isinstance(work.leaves, Architecture):
        return 0, 0
    strategy = str(getattr(train.save_strategy, "value", train.save_strategy))
    every = train.save_steps if train.save_steps >= 1 else max(1.0, train.save_steps * work.updates)
    counts = {"no": 0.0, "epoch": train.num_train_epochs, "steps": work.updates // every + 1, "best": 2.0}
    written = counts.get(strategy, 0.0)
    kept = min(written, train.save_total_limit or written) if getattr(stage, "keep", "all") == "all" else 0
    trained = trained_parameters(work.leaves, setting)
    states = 0.0 if train.save_only_model else trained * state_bytes(setting)
    weights = trained * 4 if setting.adapters else work.leaves.parameters * work.leaves.bytes
    writers = setting.ranks if setting.engine.sharded == "everything" else 1
    return written * (weights + states) / writers, kept * (weights + states)
