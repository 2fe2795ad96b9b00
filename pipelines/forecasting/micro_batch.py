"""How many rows a device takes at once where a recipe leaves it open: what its memory is forecast to have room for."""

from __future__ import annotations

import dataclasses
import logging

import psutil

from trimtab.pipelines.forecasting import machines
from trimtab.pipelines.forecasting.forecast import Forecaster
from trimtab.pipelines.planning import batch
from trimtab.pipelines.planning.recipe import Launch, Step

logger = logging.getLogger(__name__)
FILL = 0.7  # of a rank's memory: a forecast of a GPU is arithmetic that nobody has measured


def largest(step: Step, launch: Launch, machine: machines.Machine | None = None) -> int | None:
    """The largest micro-batch that fits, 1 where none does; None where the step's stays as it is planned.

    On a CPU it never grows above TRL's, which would gain nothing there. What is free at the moment decides nothing, as
    the same recipe is to give the same bits on the same machine.
    """
    if step.batch is None or not step.batch.is_open:
        return None
    machine = machine or machines.at_hand()
    memory = psutil.virtual_memory().total if machine.on_cpu else machine.memory
    forecaster = Forecaster(dataclasses.replace(machine, memory=FILL * memory))
    sizes = [size for size in step.batch.sizes if not machine.on_cpu or size <= step.batch.per_device]
    try:
        return next((size for size in sizes if forecaster.of_batch(step, launch, size).fits), 1)
    except Exception as error:  # a stage from outside may fail in any way, and no step is stopped by a guess
        logger.info("%s: no forecast (%s: %s)", step.name, type(error).__name__, error)
        return None


def fitted(step: Step, launch: Launch | None, machine: machines.Machine | None = None) -> Step:
    """The step with its largest micro-batch."""
    size = largest(step, launch or Launch(1, on_cpu=True), machine)
    return step if size is None else batch.resized(step, size)
