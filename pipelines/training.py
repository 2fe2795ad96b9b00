"""What every trainer-backed stage shares: its model arguments, its data, its audit, and `fit`, which runs it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trl

from pipelines import data, tracking
from pipelines.errors import Interrupted, RecipeError

if TYPE_CHECKING:
    from pipelines.recipe import Step

logger = logging.getLogger(__name__)


def settings(step: Step) -> dict[str, Any]:
    """The training arguments that the pipeline sets, under those of the recipe.

    trl turns bf16 on unless told otherwise, which a machine without an accelerator refuses.
    """
    import torch

    chosen = {
        "output_dir": str(step.dir / "checkpoints"),
        "run_name": step.name,
        "seed": step.seed,
        "report_to": "none",
    }
    if not torch.accelerator.is_available():
        from pipelines.seams import sharded_on_cpu

        sharded = sharded_on_cpu() is not None
        chosen |= {"use_cpu": not sharded, "bf16": False, "dataloader_pin_memory": False}
        chosen |= {"ddp_backend": "gloo"} if sharded else {}
    return chosen


def arguments(train: dict[str, Any], step: Step) -> dict[str, Any]:
    """The `train` block as it is built: the recipe's over the pipeline's.

    `report_to: wandb` is honoured by tracking.py, which owns the step's one run, so it must not start a second one.
    """
    merged = settings(step) | train
    reports = merged["report_to"]
    reports = [reports] if isinstance(reports, str) or reports is None else reports
    return merged | {"report_to": [name for name in reports if name not in ("wandb", "none", "all", None)]}


def check(stage: Any, step: Step, forms: Sequence[Sequence[str]]) -> None:
    """The preflight of a trainer-backed stage with fields `model`, `train`, `data` and `eval_data`."""
    if stage.train.save_total_limit == 1:
        raise RecipeError(
            "1 leaves nothing to resume from when a save is interrupted: keep at least 2",
            (*step.path, "train", "save_total_limit"),
        )
    tokens = tokenizer(stage.model, stage.train, step)
    for key in ("data", "eval_data"):
        data.check(getattr(stage, key), step, key, forms, tokens, stage.train)
    if stage.train.eval_strategy != "no" and stage.eval_data is None:
        raise RecipeError("eval_strategy needs `eval_data`", (*step.path, "train", "eval_strategy"))


def tokenizer(model: trl.ModelConfig, train: Any, step: Step) -> Any | None:
    """The tokenizer as the trainer will see it, or None while a step above has still to make the model."""
    place, name = (*step.path, "model", "model_name_or_path"), model.model_name_or_path
    if not name:
        raise RecipeError("required key is missing: a local path, a hub name or $stage", place)
    if step.pending(name):
        return None
    if name.startswith(("/", "./", "../", "~")) and not Path(name).expanduser().exists():
        raise RecipeError(f"no such model: {name}", place)
    from transformers import AutoTokenizer

    try:
        tokens = AutoTokenizer.from_pretrained(name, revision=model.model_revision)
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot load the tokenizer of {name}: {error}", place) from error
    for key in ("eos_token", "pad_token"):
        token = getattr(train, key, None)
        if token is not None:
            if token not in tokens.get_vocab():
                raise RecipeError(f"{token!r} is not in the vocabulary of {name}", (*step.path, "train", key))
            setattr(tokens, key, token)
    template = getattr(train, "chat_template_path", None)
    if template and Path(template).is_file():
        tokens.chat_template = Path(template).read_text()
    elif template:
        tokens.chat_template = AutoTokenizer.from_pretrained(template).chat_template
    return tokens


def policy(model: trl.ModelConfig, train: Any) -> dict[str, Any]:
    """The trainer's `model`, `args`, `peft_config` and `quantization_config`, as trl's own scripts make them.

    The model goes in as a path, so that loading it under ZeRO-3 or FSDP stays trl's business.
    """
    train.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(train.model_init_kwargs or {}),
    }
    return {
        "model": model.model_name_or_path,
        "args": train,
        "peft_config": trl.get_peft_config(model),
        "quantization_config": trl.get_quantization_config(model),
    }


def splits(stage: Any, step: Step) -> dict[str, Any]:
    """The trainer's `train_dataset` and `eval_dataset`; pairs with two equal answers are dropped and counted."""
    found = {}
    for key, name in (("data", "train_dataset"), ("eval_data", "eval_dataset")):
        block = getattr(stage, key)
        rows = data.load(block, (*step.path, key)) if block else None
        if rows is not None and {"chosen", "rejected"} <= set(rows.column_names):
            rows, dropped = data.drop_equal(rows)
            tracking.log({f"{key}/pairs": len(rows), f"{key}/equal_pairs_dropped": dropped})
        found[name] = rows
    return found


def fit(
    trainer_class: Any, stage: Any, step: Step, *, optimizer: str | None = None, keep_optimizer: bool = False, **extra
) -> dict[str, float]:
    """Trains (from the newest complete checkpoint, if there is one), evaluates, and saves a complete model.

    The optimizer begins with the state kept beside the model `optimizer`, and `keep_optimizer` keeps its own. `extra`
    goes to the trainer. Raises FloatingPointError when the loss or the gradient is no longer a number, and Interrupted
    after SIGTERM, with a checkpoint of the last step.
    """
    from pipelines import optimizer_state
    from pipelines.checkpoints import MarkComplete, newest
    from pipelines.watchdog import Watchdog

    rows = splits(stage, step)
    trainer = trainer_class(**policy(stage.model, stage.train), **rows, **extra)
    lost = _rows_lost(trainer, rows)
    folder = Path(trainer.args.output_dir)
    checkpoint = newest(folder)
    at = json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] if checkpoint else 0
    tracking.resume(at)
    trainer.add_callback(MarkComplete())
    trainer.add_callback(_callback())
    if optimizer:
        trainer.add_callback(optimizer_state.Warm(trainer, optimizer))
    watchdog = Watchdog(trainer.accelerator.process_index)
    trainer.add_callback(watchdog)
    try:
        trained = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:  # a failed training in a notebook must not be found dead an hour later
        watchdog.end()
    if watchdog.stopped and trainer.state.global_step < trainer.state.max_steps:
        raise Interrupted(f"{step.name} was asked to stop and has a checkpoint of step {trainer.state.global_step}")
    metrics = {f"train/{key.removeprefix('train_')}": value for key, value in trained.metrics.items()}
    metrics |= {"train/steps": trainer.state.global_step, "train/resumed_from": at, **lost}
    if trainer.eval_dataset is not None:
        evaluated = trainer.evaluate()
        metrics |= {f"eval/{key.removeprefix('eval_')}": value for key, value in evaluated.items()}
    if hasattr(trainer, "samples"):
        tracking.table("completions", trainer.samples())
    save(trainer, step.output)
    if keep_optimizer and trainer.accelerator.is_main_process:
        optimizer_state.save(trainer, step.output)
    return {key: value for key, value in metrics.items() if isinstance(value, int | float)}


def _rows_lost(trainer: Any, rows: dict[str, Any]) -> dict[str, int]:
    """How many rows trl has left out as too long, which it does without a word."""
    lost = {}
    for name, given in rows.items():
        kept = getattr(trainer, name)
        if given is not None and not getattr(trainer.args, "packing", False) and len(kept) < len(given):
            lost[f"{name.removesuffix('_dataset')}/rows_too_long"] = len(given) - len(kept)
            logger.warning(
                "%s: %d of %d rows are longer than max_length %s and were left out",
                name, len(given) - len(kept), len(given), trainer.args.max_length,
            )  # fmt: skip
    return lost


def save(trainer: Any, output: Path) -> None:
    """Writes a complete Hugging Face model: adapters are merged into the base weights in float32.

    The base is loaded anew, so the merge is the same whatever the training was sharded or quantised by.
    """
    from pipelines.seams import save_model, whole_models

    model = trainer.accelerator.unwrap_model(trainer.model)
    if not hasattr(model, "peft_config"):
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


def _merge(model: Any, adapter: Path, output: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    config = model.peft_config["default"]
    labels = {"num_labels": model.config.num_labels} if config.task_type == "SEQ_CLS" else {}
    auto = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    base = auto.from_pretrained(
        config.base_model_name_or_path,
        revision=config.revision,
        dtype=torch.float32,
        **labels,
    )
    tokens = AutoTokenizer.from_pretrained(adapter)
    if len(tokens) > base.get_input_embeddings().num_embeddings:  # the template added tokens
        base.resize_token_embeddings(len(tokens))
    base.config.pad_token_id = tokens.pad_token_id
    merged = PeftModel.from_pretrained(base, adapter).merge_and_unload()
    merged.save_pretrained(output)
    tokens.save_pretrained(output)


def _callback() -> Any:
    from transformers import TrainerCallback

    from pipelines.seams import rewrite_logs

    class Report(TrainerCallback):
        """Every metric to metrics.jsonl and wandb; the first one that is not a number stops the run."""

        def on_log(self, args, state, control, logs=None, **kwargs):
            for name in ("loss", "grad_norm"):
                value = (logs or {}).get(name)
                if value is not None and math.isnan(float(value)):
                    raise FloatingPointError(
                        f"{name} is not a number at step {state.global_step}: the weights are lost. Lower "
                        f"train.learning_rate ({args.learning_rate}); checkpoints in {args.output_dir} are from before"
                    )
            if state.is_world_process_zero:
                tracking.log(rewrite_logs(logs), state.global_step)

    return Report()


def release() -> None:
    """Gives memory back between two steps of one process."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
