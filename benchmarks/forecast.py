"""The forecast of every step of a recipe beside what was measured, and the table of prices that it is made with.

    python benchmarks/forecast.py recipes/tiny.yaml output_dir=...                  # of the steps that are done
    python benchmarks/forecast.py --calibrate recipes/tiny.yaml output_dir=...      # fit this machine's row to them
    python benchmarks/forecast.py --calibrate a.yaml --calibrate b.yaml             # to the steps of several runs

Steps are launched one by one (`trimtab run`), so that the peak of each is its own process's. Times are processor
seconds of all threads, which a machine that is shared with others stretches less than a clock's.

A fit changes each number of the row by the factor that makes the logarithms of the errors smallest, held by a prior
that a number which nothing was learned of stays as it is.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from statistics import median
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from trimtab.pipelines.forecasting import amounts, disk, machines, memory
from trimtab.pipelines.forecasting.forecast import Forecaster
from trimtab.pipelines.planning.recipe import Launch, Recipe, Step
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.reporting.numerals import size

FLOOR = 0.3  # seconds
PRIOR = 0.05  # of an error of e, that a number changed by e weighs
GOAL_MEMORY, GOAL_TIME = 0.15, 0.30
SLACK_MEMORY, SLACK_TIME = 50 * 2**20, 1.0  # bytes and seconds by which nobody plans otherwise

Measured = tuple[Step, dict[str, Any]]


def done(path: str, overrides: list[str]) -> list[Measured]:
    """The steps of a recipe that are done and were measured, with their records."""
    steps = []
    for step in Recipe.load(path, overrides).steps:
        record = artifacts.read_done(step.dir) if step.done else None
        if record and "peak_bytes" in record:
            steps.append((step, record))
    return steps


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

    found = least_squares(errors, np.zeros(len(names)))
    return {name: float(f"{number:.4g}") for name, number in changed(found.x).items()}


def calibrate(runs: list[list[Measured]]) -> None:
    """Writes this machine's row, fitted to the steps of some runs."""
    machine = machines.at_hand()
    steps = list(chain.from_iterable(runs))
    works, of_steps = [], []
    for run in runs:
        forecaster = Forecaster(machine)
        works.append([])
        for step, record in run:
            setting = forecaster.setting(step, Launch(record["world_size"], machine.on_cpu))
            work, _ = forecaster.work(step, setting)
            stage = forecaster.memory.stage(step)
            written, _ = disk.checkpoints(stage, work, setting)
            works[-1].append((work, setting))
            of_steps.append(amounts.of(work, setting, written + disk.artifact(stage, work)))

    def peaks(sizes: Mapping[str, float]) -> list[float]:
        of_steps = []
        for run in works:
            held = 0.0
            for work, setting in run:
                of_steps.append(sum(memory.parts(work, setting, sizes, held).values()))
                held = max(held, memory.left(work, memory.parts(work, setting, sizes), sizes))
        return of_steps

    def times(prices: Mapping[str, float]) -> list[float]:
        return [replace(machine, prices=prices).seconds(of_step, 0.0, bf16=False) for of_step in of_steps]

    sizes = fitted(machine.sizes, peaks, [record["peak_bytes"] for _, record in steps])
    prices = fitted(machine.prices, times, [record["cpu_seconds"] for _, record in steps], FLOOR)
    table = json.loads(machines.FILE.read_text())
    row = table["machines"][machine.name]
    row["source"] = f"{os.cpu_count()} cores, {len(steps)} steps measured on {time.strftime('%Y-%m-%d')}"
    row["memory"], row["prices"] = sizes, prices
    machines.FILE.write_text(json.dumps(table, indent=1) + "\n")
    machines.table.cache_clear()


def compare(steps: list[Measured]) -> str:
    """A table in Markdown: forecast and measurement of each step, and their errors."""
    forecaster = Forecaster(machines.at_hand())
    lines = ["| step | kind | memory: forecast | measured | error | cpu s: forecast | measured | error |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    memories: list[tuple[float, float]] = []
    times: list[tuple[float, float]] = []
    for step, record in steps:
        launch = Launch(record["world_size"], forecaster.machine.on_cpu)
        ahead = forecaster.forecast(step, launch)
        forecaster.follow(step, launch)
        memories.append((ahead.peak, record["peak_bytes"]))
        times.append((ahead.processor_seconds, record["cpu_seconds"]))
        of_memory = f"{size(ahead.peak)} | {size(record['peak_bytes'])} | {_error(*memories[-1]):+.0%}"
        of_time = f"{ahead.processor_seconds:.1f} | {record['cpu_seconds']:.1f} | {_error(*times[-1]):+.0%}"
        lines.append(f"| {step.name} | {step.kind} | {of_memory} | {of_time} |")
    lines += [
        "",
        _within("memory", memories, GOAL_MEMORY, SLACK_MEMORY),
        _within("time", times, GOAL_TIME, SLACK_TIME),
    ]
    return "\n".join(lines)


def _error(ahead: float, measured: float) -> float:
    return ahead / measured - 1


def _within(name: str, pairs: list[tuple[float, float]], goal: float, slack: float) -> str:
    """How many are within the goal, and how many within it or the slack."""
    errors = [abs(_error(*pair)) for pair in pairs]
    near = [abs(ahead - measured) <= slack for ahead, measured in pairs]
    within = sum(error <= goal for error in errors)
    either = sum(error <= goal or is_near for error, is_near in zip(errors, near, strict=True))
    amount = size(slack) if name == "memory" else f"{slack:g} s"
    counts = f"{within} of {len(errors)} steps within {goal:.0%}, {either} within {goal:.0%} or {amount}"
    return f"{name}: {counts}; median error {median(errors):.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="*", help="a recipe, and overrides key=value")
    parser.add_argument("--calibrate", action="append", nargs="+", default=[], metavar="RECIPE [key=value]")
    options = parser.parse_args()
    if options.calibrate:
        calibrate([done(path, overrides) for path, *overrides in options.calibrate])
    if options.recipe:
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(compare(done(options.recipe[0], options.recipe[1:])))


if __name__ == "__main__":
    main()
