"""One step in its process group: the artifact's folder, tracking, the stage itself, and publication."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

from trimtab.pipelines.forecasting import forecast, micro_batch
from trimtab.pipelines.planning import batch, field_types, kinds, provenance, schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Launch, Recipe, Step
from trimtab.pipelines.planning.stops import stop
from trimtab.pipelines.recording import artifacts, locks, tracking, usage, views, watch
from trimtab.pipelines.reporting import sections
from trimtab.pipelines.reporting.numerals import duration
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.running import disk, failures, verification
from trimtab.pipelines.running.environment import say

SHOWN = 3  # metrics in the line that a step ends with


def make(recipe: Recipe, step: Step, distributed: Any, *, check: bool) -> None:
    """Makes a step, which this process group holds alone, from an empty folder to its done.json.

    `check` looks at the inputs first: those that the steps before have made since the preflight.
    """
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
    if step.batch is not None and step.batch.is_open:
        size = locks.of_main(functools.partial(micro_batch.largest, step, _launch(distributed)))
        step = step if size is None else batch.resized(step, size)
    ahead = forecast.record(step, _launch(distributed)) if main else None
    tracking.start(step, recipe, main)  # after the forecast, which reads rows that are not to be counted
    watch.enter(step.name)
    if ahead:
        disk.require_room(step.dir, ahead["disk_bytes"])
    used = usage.Usage()
    record = None
    try:
        metrics = _make(dataclasses.replace(step, output=step.dir / artifacts.PARTIAL), check=check, main=main)
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
    with field_types.imported():
        checked = schema.check(cls, step.options, step.path)
        trained = field_types.training(cls)
        if trained is not None:
            from trimtab.pipelines.training.arguments import arguments

            checked[trained] = arguments(checked.get(trained, {}), step)
        try:
            return schema.instance(cls, checked)
        except ValueError as error:  # trl's own check of settings that have to fit each other
            raise RecipeError(str(error), (*step.path, *([trained] if trained else []))) from error


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
        "rows": tracking.rows(),
        "world_size": distributed.num_processes,
        "distributed": str(distributed.distributed_type).rpartition(".")[2],
        "device": _device_name(distributed.device),
    }


def _summary(step: Step, record: dict[str, Any]) -> str:
    """The line that a step ends with: its time, what its kind says of it, and where it is."""
    shows = getattr(kinds.find(kinds.STAGES, step.kind), "shows", Shows())
    numbers = ", ".join(f"{name} {value}" for name, value in sections.results(record["metrics"], shows.results, SHOWN))
    return f"    {step.name} took {duration(record['seconds'])}: {step.output}{', ' if numbers else ''}{numbers}"


def _launch(distributed: Any) -> Launch:
    return Launch(distributed.num_processes, distributed.device.type == "cpu")


def _device_name(device: Any) -> str:
    """What the step ran on: "cpu", or the accelerator's name."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
