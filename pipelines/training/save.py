"""Saving what was trained as a complete Hugging Face model."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save(trainer: Any, output: Path, dtype: str | None = None, use_cache: bool | None = None) -> None:
    """Writes a complete Hugging Face model: adapters are merged into the base weights in float32.

    With `dtype`, what was written is rounded to that. `use_cache` is the input's, which a trainer switches off.

    The base is loaded anew, so the merge is the same whatever the training was sharded or quantised by. Raises
    FloatingPointError or ValueError where what was written is not a whole model of numbers.
    """
    from trimtab.pipelines.trainers.seams.engines import parameter_count, save_model, whole_models
    from trimtab.pipelines.training.finite import check_written
    from trimtab.pipelines.training.precision import cast, say

    model = trainer.accelerator.unwrap_model(trainer.model)
    parameters = 0  # of a merged model, whose base may have been quantised
    if not hasattr(model, "peft_config"):
        parameters = parameter_count(model)
        save_model(trainer, output)
    else:
        adapter = output.parent / "adapter"
        save_model(trainer, adapter)
        if trainer.accelerator.is_main_process:
            with whole_models():  # the other ranks load nothing
                _merge(model, adapter, output)
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        (output / "training_args.bin").unlink(missing_ok=True)  # a pickle
        if dtype:
            cast(output, dtype)
        if use_cache is not None:
            say(output / "config.json", use_cache=use_cache)
        check_written(output, parameters)


def _merge(model: Any, adapter: Path, output: Path) -> None:
    from trimtab.pipelines.training.merging import merge

    config, names = model.peft_config["default"], ("id2label", "label2id")  # as many as there are classes
    labels = {name: getattr(model.config, name) for name in names} if config.task_type == "SEQ_CLS" else None
    merge(adapter, config.base_model_name_or_path, output, revision=config.revision, labels=labels)
