"""`fit`, which runs any trainer of trl's kind: from a checkpoint, watched, evaluated, and saved."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning.errors import Interrupted, RecipeError
from trimtab.pipelines.planning.optimizer_blocks import STATE
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.training.inputs import policy, splits
from trimtab.pipelines.training.save import save

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

logger = logging.getLogger(__name__)


def fit(
    trainer_class: Any,
    stage: Any,
    step: Step,
    *,
    look: Callable[[Any], dict[str, float]] = lambda trainer: {},
    **extra: Any,
) -> dict[str, float]:
    """Trains (from the newest complete checkpoint, if there is one), saves a complete model, and evaluates.

    `look` is called with the trainer while its model is still the step's input, and gives further metrics. `extra`
    goes to the trainer. Raises FloatingPointError when the loss or the gradient is no longer a number, RecipeError
    when nothing was learned, and Interrupted after SIGTERM or SIGINT, with a checkpoint of the last step.
    """
    from trimtab.pipelines.training import display, optimizer_state, optimizers, resuming, schedules
    from trimtab.pipelines.training.compute_once import compute_once
    from trimtab.pipelines.training.gradient_norms import GradientNorms
    from trimtab.pipelines.training.learning import Learning

    rows = splits(stage, step)
    trainer = trainer_class(**policy(stage.model, stage.train), **rows, **extra)
    if step.batch is not None and step.batch.tokens is not None:
        trainer.tokens_per_batch = step.batch.tokens
    optimizers.install(trainer, stage.optimizer)
    display.install(trainer, step.name, [*stage.shows.watches, *stage.shows.results], table=stage.shows.table)
    compute_once(trainer)
    if stage.schedule is not None:
        schedules.install(trainer, stage.schedule, step)
    seen = look(trainer)
    lost = _rows_lost(trainer, rows, step)
    learning = Learning(trainer)
    checkpoint = resuming.find(Path(trainer.args.output_dir), step)
    resumed_from = json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] if checkpoint else 0
    norms = GradientNorms(trainer, checkpoint)
    trainer.add_callback(norms)  # before the mark of checkpoints, which is of all files
    trained = _train(trainer, step, checkpoint, (stage.optimizer or {}).get(STATE), learning)
    optimizers.average(trainer)
    if stage.must_learn:
        learning.require_change(step, resumed_from)
    save(trainer, step.output, stage.dtype, _use_cache(stage.model))
    if trainer.accelerator.is_main_process:
        norms.write(step.output)
        if stage.keep_optimizer:
            optimizer_state.save(trainer, step.output)
    metrics = {f"train/{key.removeprefix('train_')}": value for key, value in trained.items()}
    metrics |= {"train/steps": trainer.state.global_step, "train/resumed_from": resumed_from, **lost, **seen}
    if trainer.eval_dataset is not None:
        evaluated = _evaluate(trainer, step)
        metrics |= {f"eval/{key.removeprefix('eval_')}": value for key, value in evaluated.items()}
    if hasattr(trainer, "samples"):
        tracking.table("completions", trainer.samples())
    return {key: value for key, value in metrics.items() if isinstance(value, int | float)}


def _use_cache(model: Any) -> bool | None:
    """Whether the configuration of the step's input says `use_cache`; None where it says nothing."""
    from transformers import PreTrainedConfig

    config, _ = PreTrainedConfig.get_config_dict(model.model_name_or_path, revision=model.model_revision)
    return config.get("use_cache")


def _train(trainer: Any, step: Step, checkpoint: Path | None, warm: str | None, learning: Any) -> dict[str, float]:
    """Trains under our callbacks and returns the trainer's metrics of it."""
    from trimtab.pipelines.trainers.seams.engines import end_training
    from trimtab.pipelines.training import counting, interrupts
    from trimtab.pipelines.training.at_hand import BatchAtHand
    from trimtab.pipelines.training.box import Box
    from trimtab.pipelines.training.checkpoints import MarkComplete
    from trimtab.pipelines.training.learning import AlreadyTrained
    from trimtab.pipelines.training.optimizer_state import Warm
    from trimtab.pipelines.training.recorder import Recorder
    from trimtab.pipelines.training.room import Room
    from trimtab.pipelines.training.watchdog import Watchdog

    recorder, watchdog, at_hand = Recorder(), Watchdog(), BatchAtHand(trainer)
    limit, trainer.args.save_total_limit = trainer.args.save_total_limit, None  # pruned when the new one is marked
    trainer.add_callback(counting.Counting(trainer, checkpoint))  # before the mark, which is of all files
    trainer.add_callback(MarkComplete(trainer, limit))
    trainer.add_callback(recorder)
    trainer.add_callback(Box(trainer))
    if checkpoint:
        trainer.args.eval_on_start = False  # it was evaluated when it started
    if warm:
        trainer.add_callback(Warm(trainer, warm))
    trainer.add_callback(watchdog)
    trainer.add_callback(Room(trainer))  # after what asks for a checkpoint
    trainer.add_callback(learning)
    try:
        with interrupts.noted():
            trained = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).metrics
        trained["train_loss"] = counting.mean_loss(trainer)
    except FloatingPointError as error:
        raise FloatingPointError(f"{error}. The rows at hand are in {at_hand.save(step.dir)}") from error
    except AlreadyTrained:
        trained = counting.end(trainer)
        end_training(trainer, checkpoint)
    finally:  # a failed training in a notebook must not be taken for a stalled one an hour later
        watchdog.end()
    if watchdog.stopped:
        kept = f"has a checkpoint of step {trainer.state.global_step}"
        raise Interrupted(f"{step.name} was interrupted and {kept}", watchdog.stopped)
    interrupts.leave_if_asked()
    learning.require_steps(step)
    recorder.close(trainer.state)
    return trained


def _evaluate(trainer: Any, step: Step) -> dict[str, float]:
    """The metrics of `eval_data`. Says what a failure leaves, which is all of the training."""
    from trimtab.pipelines.training.checkpoints import MARK

    try:
        return trainer.evaluate()
    except Exception:
        checkpoint = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
        again = f"The same command goes on from {checkpoint} and only evaluates"
        if not (checkpoint / MARK).exists():
            again = "It was to keep no checkpoint, so the same command trains again: move the weights to keep them"
        logger.error("%s: trained and saved in %s, but the evaluation failed. %s", step.name, step.output, again)
        raise


def _rows_lost(trainer: Any, rows: dict[str, Any], step: Step) -> dict[str, int]:
    """How many rows trl has left out as too long, which it does without a word. Raises RecipeError for all of them."""
    lost = {}
    otherwise = getattr(trainer, "left_out", {})  # which the trainer counts itself
    for name, given in rows.items():
        kept = getattr(trainer, name)
        count = 0 if given is None else len(given) - len(kept) - otherwise.get(name, 0)
        if count > 0 and not getattr(trainer.args, "packing", False):
            limit = trainer.args.max_length
            lost[f"{name.removesuffix('_dataset')}/rows_too_long"] = count
            message = "%s: %d of %d rows are longer than max_length %s and were left out"
            logger.warning(message, name, count, len(given), limit)
            if not len(kept):
                key = "data" if name == "train_dataset" else "eval_data"
                raise RecipeError(f"none of {len(given)} rows fits in max_length {limit}", (*step.path, key))
    return lost
