"""The runner: one step in this process group, or all pending ones, from an empty folder to done.json."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from trimtab.pipelines.forecasting import forecast
from trimtab.pipelines.planning import field_types, kinds, preflight, provenance, schema
from trimtab.pipelines.planning.errors import Interrupted, RecipeError
from trimtab.pipelines.planning.recipe import Launch, Recipe, Step
from trimtab.pipelines.planning.stops import stop
from trimtab.pipelines.recording import artifacts, tracking, usage, views, watch
from trimtab.pipelines.running import consents, disk, environment, exits, failures, locking, orphans, verification
from trimtab.pipelines.running.environment import LAUNCHED, MAIN, fail, say, show
from trimtab.pipelines.training import interrupts
from trimtab.rewards import RewardFailure

SHOWN = 6  # metrics in the line that a step ends with
DULL = re.compile(r"runtime|wait_seconds|per_second|total_flos|epoch|num_tokens|resumed_from")


@exits.command
def train(
    path: str,
    overrides: Sequence[str] = (),
    only: str | None = None,
    *,
    rebuild: bool = False,
    trusting: bool = False,
) -> int:
    """Runs the pending steps of a recipe (of stage `only`) in this process group; every rank calls it.

    With `rebuild`, also those whose artifacts are damaged, which are refused otherwise.

    Returns 0 when every step is done, 1 when a reward or anything else failed, 2 for a mistake in the recipe, also one
    that only a library knows, a damaged artifact or a run directory in use, and 128 and the signal's number after
    SIGINT (130) or SIGTERM (143), when what is finished is kept; after a training, a checkpoint of its last step.
    """
    environment.prepare()
    orphans.die_with_launcher()
    try:
        recipe = consents.load(path, overrides, trusting=trusting)
        steps = recipe.select(only=only)
        pending = [step for step in steps if not step.done]
        provenance.require_whole(recipe, steps, rebuild=rebuild)
        if not LAUNCHED and "LOCAL_RANK" not in os.environ:  # of several ranks one compares, before each step
            provenance.require_content(recipe, pending)
        preflight.require_inputs(pending)
        preflight.check(recipe, pending, launch=_launched_on)
    except RecipeError as error:
        return fail(str(error))
    with contextlib.ExitStack() as stack:
        if MAIN and pending and not LAUNCHED:
            try:
                stack.enter_context(locking.lock(recipe.run, shlex.join(sys.argv)))
            except locking.Locked as error:
                return fail(str(error))
            except disk.Refused as error:
                fail(str(error))
                return failures.FAULT
        try:
            return _run_all(recipe, steps, pending)
        except RecipeError as error:
            return fail(str(recipe.document.locate(error)))
        except Interrupted as error:
            say(f"    {error}. The same command continues here")
            return 128 + error.number
        except RewardFailure as error:  # on whichever rank
            print(f"error: {error}", file=sys.stderr, flush=True)
            return 1
        finally:
            if pending:
                environment.leave_process_group()


def _run_all(recipe: Recipe, steps: Sequence[Step], pending: Sequence[Step]) -> int:
    unseen = {step.name for step in pending if step.waiting}  # whose inputs could not be looked at yet
    if len(pending) > 1 and _is_sharded():
        say("FSDP and DeepSpeed keep state between the steps of one process: scripts/run.py is the way for them")
    if MAIN and not LAUNCHED:
        views.record(recipe)
    for step in steps:
        if not LAUNCHED:
            say(f"[{recipe.steps.index(step) + 1}/{len(recipe.steps)}] {step.name} ({step.kind}) {step.fingerprint}")
        if step.done:
            say(f"    done: {step.output}")
            continue
        try:
            run(recipe, step, check=step.name in unseen, timeout=max(map(_patience, pending)))
        except interrupts.Stopped as stopped:
            raise Interrupted(f"{step.name} was interrupted, and keeps what it has finished", stopped.number) from None
        except (RecipeError, Interrupted, RewardFailure, KeyboardInterrupt):
            raise
        except BaseException as error:  # also the sys.exit of a reward, which says nothing of the step
            return failures.report(error, recipe, step)
    if not LAUNCHED:
        if MAIN:
            views.record(recipe)
        show(steps)
        environment.note(provenance.notes(recipe.steps))
    return 0


def run(recipe: Recipe, step: Step, *, check: bool, timeout: timedelta) -> None:
    """One step: artifact folder, tracking, the stage itself, publication. Called by every rank.

    `check` looks at the inputs first: those that the steps before have made since the preflight. `timeout` is how long
    ranks wait for each other.
    """
    distributed = _join_process_group(timeout)
    with contextlib.nullcontext() if LAUNCHED else locking.step_lock(step, _agreed):
        if _agreed(lambda: step.done):  # by now, since another process has made it
            say(f"    done: {step.output}")
            return
        _run(recipe, step, distributed, check=check)


def _agreed(ask: Callable[[], Any]) -> Any:
    """What the main process finds, on every rank."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    answer = [ask() if PartialState().is_main_process else None]
    return broadcast_object_list(answer)[0]


def _run(recipe: Recipe, step: Step, distributed: Any, *, check: bool) -> None:
    """Makes a step, which this process group holds alone."""
    from accelerate.utils import gather_object, release_memory

    if step.batch is not None and step.batch.ranks != distributed.num_processes:
        planned, started = step.batch.ranks, distributed.num_processes
        raise RecipeError(f"planned for {planned} ranks and started on {started}: say `-- --num_processes`", step.path)
    main = distributed.is_main_process
    verification.require_content(recipe, step, main=main)
    started = time.time()
    if main:
        step.dir.mkdir(parents=True, exist_ok=True)
        views.link(step)
        artifacts.fresh(step.dir)
        (step.dir / failures.FILE).unlink(missing_ok=True)  # of the launch before
    distributed.wait_for_everyone()
    tracking.start(step, recipe, main)
    watch.enter(step.name)
    ahead = forecast.record(step, _launch(distributed)) if main else None
    if ahead:
        disk.require_room(step.dir, ahead["disk_bytes"])
    used = usage.Usage()
    record = None
    try:
        metrics = _make(dataclasses.replace(step, output=step.dir / "output.partial"), check=check, main=main)
        measured = usage.largest(gather_object([used.measured()]))
        if main:
            seconds = round(time.time() - started, 3)
            record = _record(recipe, step, metrics, distributed)
            record |= {"seconds": seconds, **measured, "forecast": ahead}
            tracking.settle()
            record = artifacts.publish(step.dir, record, step.options.get("keep", "all"))
    finally:
        tracking.finish(record)
    distributed.wait_for_everyone()
    release_memory()
    if record:
        say(_summary(step, record))


def build(step: Step) -> Any:
    """The step's stage as it is run, with training arguments that are constructed. Raises RecipeError."""
    cls = kinds.find(kinds.STAGES, step.kind, step.path)
    checked = schema.check(cls, step.options, step.path)
    trained = [
        key
        for key, hint in field_types.hints(cls).items()
        if field_types.is_training_arguments(field_types.bare(hint))
    ]
    for key in trained:
        from trimtab.pipelines.training.arguments import arguments

        checked[key] = arguments(checked.get(key, {}), step)
    try:
        return schema.instance(cls, checked)
    except ValueError as error:  # trl's own check of settings that have to fit each other
        raise RecipeError(str(error), (*step.path, *trained[:1])) from error


def _join_process_group(timeout: timedelta) -> Any:
    """The one state of the process group, with what the libraries have to be told before it is made."""
    import torch
    import transformers
    from accelerate import PartialState

    from trimtab.pipelines.trainers.seams.engines import prepare_cpu_engines, sharding

    transformers.utils.logging.disable_progress_bar()  # of loading and saving weights; the trainer's stays
    on_cpu = not torch.accelerator.is_available()
    if on_cpu:
        from trimtab.pipelines.trainers.seams.trl import use_lean_head_on_cpu

        use_lean_head_on_cpu()
    prepare_cpu_engines()
    # without `cpu` the ranks of a machine without GPUs would not know each other
    return PartialState(cpu=on_cpu and not sharding(), timeout=timeout)


def _make(step: Step, *, check: bool, main: bool) -> dict[str, float]:
    """The artifact, in `step.output`: the stage's, or only a note where a loop was stopped before."""
    from trimtab.pipelines.training.merging import merge_adapters

    stage = build(step)
    reasons = step.stop_reasons
    if reasons and not stage.takes_stopped:
        say(f"    not made: {reasons[0]}")
        if main:
            stop(step.output, reasons[0])
        return {"stopped": 1}
    if check:
        stage.check(step)
    merge_adapters(stage, step)
    return stage.run(step)


def _record(recipe: Recipe, step: Step, metrics: Any, distributed: Any) -> dict[str, Any]:
    """What done.json says, but for what was used, and for files and versions, which the publication adds."""
    return {
        "recipe": recipe.name,
        "step": step.name,
        "stage": step.stage,
        "kind": step.kind,
        "fingerprint": step.fingerprint,
        "key": step.key,
        "seed": step.seed,
        "options": tracking.redact(step.options),
        "identity": tracking.redact(step.identity),
        "inputs": {source.name: source.fingerprint for source in step.inputs},
        "made_from": provenance.digests(step),
        "metrics": metrics,
        "world_size": distributed.num_processes,
        "distributed": str(distributed.distributed_type).rpartition(".")[2],
        "device": _device_name(distributed.device),
    }


def _summary(step: Step, record: dict[str, Any]) -> str:
    numbers = [(key, value) for key, value in record["metrics"].items() if not DULL.search(key)]
    numbers.sort(key=lambda item: not item[0].startswith("eval/"))
    line = ", ".join(f"{key} {value:.4g}" for key, value in numbers[:SHOWN])
    return f"    {record['seconds']:.1f} s, {step.output}" + (f"\n    {line}" if line else "")


def _launched_on(step: Step) -> Launch | None:
    """The launch that this process belongs to; None where a launcher of ours has looked at it already."""
    import torch

    if LAUNCHED:
        return None
    return Launch(int(os.environ.get("WORLD_SIZE", "1")), not torch.accelerator.is_available())


def _is_sharded() -> bool:
    from trimtab.pipelines.trainers.seams.engines import (
        sharding,  # imports torch, which a finished recipe does not need
    )

    return sharding() is not None


def _patience(step: Step) -> timedelta:
    """How long ranks wait for each other: as `train.ddp_timeout` says, or a day where they sample or score.

    There, one rank may have much more to do than another, and a collective that waits for it is no error.
    """
    if "train" not in step.options:
        return timedelta(days=1)
    return timedelta(seconds=step.options["train"].get("ddp_timeout", 1800))


def _launch(distributed: Any) -> Launch:
    return Launch(distributed.num_processes, distributed.device.type == "cpu")


def _device_name(device: Any) -> str:
    """What the step ran on: "cpu", or the accelerator's name."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
