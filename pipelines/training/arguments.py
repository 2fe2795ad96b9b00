"""Training arguments: what the pipeline sets, what the recipe says over it, and what cannot work together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning.errors import RecipeError

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


INEXACT = {
    "save_only_model": "a training goes on exactly only with the state of its optimizer: leave it out, or set "
    "`save_strategy: no` where no checkpoint is wanted",
    "ignore_data_skip": "a training that goes on from a checkpoint would begin its rows anew: leave it out",
    "save_on_each_node": "the run directory is one for all nodes, and they would write over each other: leave it out",
}
NO_RATE = "is 0, so nothing is learned. For a control that is meant to stay as it is, set `must_learn: false`"


def check_arguments(stage: Any, step: Step) -> None:
    """Raises RecipeError for arguments of a trainer-backed stage that its checkpoints or its data do not allow."""
    if stage.train.save_total_limit == 1:
        raise RecipeError(
            "1 leaves nothing to resume from when a save is interrupted: keep at least 2",
            (*step.path, "train", "save_total_limit"),
        )
    for key, reason in INEXACT.items():
        if getattr(stage.train, key, False):
            raise RecipeError(reason, (*step.path, "train", key))
    if stage.train.eval_strategy != "no" and stage.eval_data is None:
        raise RecipeError("eval_strategy needs `eval_data`", (*step.path, "train", "eval_strategy"))
    if stage.must_learn and stage.train.learning_rate == 0:
        raise RecipeError(NO_RATE, (*step.path, "train", "learning_rate"))
    if stage.train.num_train_epochs <= 0 and stage.train.max_steps <= 0:
        epochs = stage.train.num_train_epochs
        raise RecipeError(f"{epochs:g} epochs are no training: give more, or `max_steps`", (*step.path, "train"))


def too_few_prompts(prompts: int, needed: int) -> str:
    """What is wrong where one rollout needs more different prompts than there are."""
    return (
        f"a rollout needs {needed} different prompts, there are {prompts}: lower per_device_train_batch_size "
        "(or steps_per_generation), or add prompts"
    )


def settings(step: Step) -> dict[str, Any]:
    """The training arguments that the pipeline sets, under those of the recipe.

    trl turns bf16 on unless told otherwise, which a machine without an accelerator refuses, and recomputes all
    activations in the backward pass, which saves the memory of a device and costs a third of the time.
    """
    import torch
    from transformers.utils import is_torch_tf32_available

    chosen = {
        "output_dir": str(step.dir / "checkpoints"),
        "run_name": step.name,
        "seed": step.seed,
        "report_to": "none",
    }
    if is_torch_tf32_available():
        chosen["tf32"] = (
            True  # of what is not in bfloat16: a training with `bf16: false`, which is 8 times as slow without
        )
    if not torch.accelerator.is_available():
        from trimtab.pipelines.trainers.seams.engines import sharding

        sharded = sharding() is not None
        chosen |= {"use_cpu": not sharded, "bf16": False, "dataloader_pin_memory": False}
        chosen |= {"gradient_checkpointing": False}
        chosen |= {"ddp_backend": "gloo"} if sharded else {}
    return chosen


def arguments(train: dict[str, Any], step: Step) -> dict[str, Any]:
    """The `train` block as it is built: the recipe's over the pipeline's."""
    merged = settings(step) | train
    return merged | {"report_to": trackers(merged["report_to"])}


def trackers(reports: str | list[str] | None) -> list[str]:
    """The trackers that transformers is told of.

    `report_to: wandb` is honoured by tracking.py, which owns the step's one run, so it must not start a second one.
    """
    names = [reports] if isinstance(reports, str) else reports or []
    return [name for name in names if name not in ("wandb", "none", "all", None)]
