"""A machine's row of pipelines/forecasting/machines.json, fitted to steps that were measured on it.

A fit changes each number of the row by the factor that makes the logarithms of the errors smallest, held by a prior
that a number which nothing was learned of stays as it is.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from trimtab.pipelines.forecasting import amounts, disk, machines, memory
from trimtab.pipelines.forecasting.forecast import Forecaster
from trimtab.pipelines.planning.recipe import Launch, Step

FLOOR = 0.5  # seconds
PRIOR = 0.05  # of an error of e, that a number changed by e weighs

Measured = tuple[Step, dict[str, Any], bool]  # a step, its done.json, and whether it began a launch


def fitted(
    numbers: Mapping[str, float],
    predict: Callable[[Mapping[str, float]], list[float]],
    measured: list[float],
    floor: float = 0.0,
) -> dict[str, float]:
    """The numbers, each by a factor of its own, with which `predict` comes nearest to what was measured.

    Errors are logarithms of ratios, of both sides with `floor` more: what is far below it counts for little.
    """
    names = [name for name, number in numbers.items() if number > 0]

    def changed(factors: Any) -> dict[str, float]:
        return {**numbers, **{name: numbers[name] * math.exp(f) for name, f in zip(names, factors, strict=True)}}

    def errors(factors: Any) -> Any:
        pairs = zip(predict(changed(factors)), measured, strict=True)
        ratios = [math.log((one + floor) / (other + floor)) for one, other in pairs]
        return np.array([*ratios, *(PRIOR * np.asarray(factors))])

    found = least_squares(errors, np.zeros(len(names)), loss="soft_l1", f_scale=0.2)
    return {name: float(f"{number:.4g}") for name, number in changed(found.x).items()}


def calibrate(runs: list[list[Measured]]) -> None:
    """Writes this machine's row, fitted to the steps of some runs in the order in which they ran."""
    machine = machines.at_hand()
    works, of_steps = [], []
    for run in runs:
        forecaster, has_trainer = Forecaster(machine), False
        for step, record, begins in run:
            setting = forecaster.setting(step, Launch(record["world_size"], machine.on_cpu))
            work, _ = forecaster.work(step, setting)
            stage = forecaster.memory.stage(step)
            written, _ = disk.checkpoints(stage, work, setting)
            works.append((work, setting, begins))
            has_trainer = has_trainer and not begins
            of_steps.append(amounts.of(work, setting, written + disk.artifact(stage, work), imports=not has_trainer))
            has_trainer = has_trainer or work.libraries == "trainer"

    def peaks(sizes: Mapping[str, float]) -> list[float]:
        of_steps, held = [], 0.0
        for work, setting, begins in works:
            held = 0.0 if begins else held
            of_steps.append(sum(memory.parts(work, setting, sizes, held).values()))
            held = max(held, memory.left(work, memory.parts(work, setting, sizes), sizes))
        return of_steps

    def times(prices: Mapping[str, float]) -> list[float]:
        return [replace(machine, prices=prices).seconds(of_step, 0.0, bf16=False) for of_step in of_steps]

    records = [record for _, record, _ in chain.from_iterable(runs)]
    table = json.loads(machines.FILE.read_text())
    row = table["machines"][machine.name]
    row["source"] = f"{os.cpu_count()} cores, {len(records)} steps measured on {time.strftime('%Y-%m-%d')}"
    row["memory"] = fitted(machine.sizes, peaks, [record["peak_bytes"] for record in records])
    row["prices"] = fitted(machine.prices, times, [record["cpu_seconds"] for record in records], FLOOR)
    machines.FILE.write_text(json.dumps(table, indent=1) + "\n")
    machines.table.cache_clear()
