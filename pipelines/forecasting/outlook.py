"""The forecast of a plan as text: a line for each step, the sum, the largest, what fits, and what was assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trimtab.pipelines.forecasting import cures, machines
from trimtab.pipelines.forecasting.forecast import Forecast, Forecaster
from trimtab.pipelines.forecasting.setting import Engine
from trimtab.pipelines.planning.commands import accelerate_config
from trimtab.pipelines.planning.recipe import Launch, Recipe, Step
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.reporting.numerals import DASH, duration, size

HEADINGS = ("step", "peak of a rank", "time", "on disk", "tokens")
ASSUMED = 8  # assumptions that are written out


def amount(count: float) -> str:
    """A number of tokens, as "1.2 M"."""
    for letter, unit in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= unit:
            return f"{count / unit:.3g} {letter}"
    return f"{count:.0f}"


class Outlook:
    """The forecasts of the steps of a plan that are still to run, beside what those that are done have taken."""

    def __init__(self, steps: Sequence[Step], launches: Mapping[str, Launch], machine: machines.Machine | None):
        self.steps, self.launches = steps, launches
        self.forecasts: dict[str, Forecast] = {}
        self.failures: list[str] = []
        self.forecaster = Forecaster(machine) if machine else None
        for step in steps:
            if self.forecaster and not step.done and step.name in launches:
                self._look(self.forecaster, step)

    def _look(self, forecaster: Forecaster, step: Step) -> None:
        try:
            self.forecasts[step.name] = forecaster.forecast(step, self.launches[step.name])
            forecaster.follow(step, self.launches[step.name])
        except Exception as error:  # a stage from outside may fail in any way, and no plan is stopped by a guess
            self.failures.append(f"{step.name}: no forecast ({type(error).__name__}: {error})")

    def engine(self, step: Step) -> Engine | None:
        """The engine that a step is launched with, as its accelerate configuration says; None without a machine."""
        return self.forecaster.setting(step, self.launches[step.name]).engine if self.forecaster else None

    def text(self, folder: Path) -> str:
        """The table and what follows from it; `folder` is where the run will lie."""
        rows = [HEADINGS, *(self._row(step) for step in self.steps)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, *self._sum(folder), *self._misfits(), *self._assumptions()])

    def _row(self, step: Step) -> tuple[str, ...]:
        if step.done:
            return step.name, *measured(artifacts.read_done(step.dir) or {})
        if step.name not in self.forecasts:
            return (step.name, *[DASH] * (len(HEADINGS) - 1))
        ahead = self.forecasts[step.name]
        does_fit = "" if ahead.fits else f" of {size(ahead.room)}!"
        time = duration(ahead.seconds)
        return step.name, size(ahead.peak) + does_fit, time, size(ahead.disk), amount(ahead.tokens)

    def _sum(self, folder: Path) -> Iterator[str]:
        if not self.forecasts or not self.forecaster:
            return
        machine, ahead = self.forecaster.machine, self.forecasts.values()
        seconds, disk = sum(one.seconds for one in ahead), sum(one.disk for one in ahead)
        there = sum(map(machines.used_disk, {step.dir for step in self.steps}))
        free = machines.free_disk(folder)
        yield f"forecast for {machine.count} x {machine.name} ({machine.source}): {duration(seconds)} still to run"
        fits = "fits" if disk <= free else "DOES NOT FIT"
        yield f"disk: {size(disk)} to come, {size(there)} there, {size(free)} free: {fits}"
        largest = max(self.forecasts, key=lambda name: self.forecasts[name].peak)
        longest = max(self.forecasts, key=lambda name: self.forecasts[name].seconds)
        peak, room = self.forecasts[largest].peak, self.forecasts[largest].room
        fits = "fits" if peak <= room else "DOES NOT FIT"
        yield f"largest: {largest}, {size(peak)} of the {size(room)} that a rank has: {fits}"
        yield f"longest: {longest}, {duration(self.forecasts[longest].seconds)}"

    def _misfits(self) -> Iterator[str]:
        """What does not fit, and the cheapest change by which it does, once for all steps that it helps."""
        cured: dict[str, list[tuple[str, Forecast, Forecast]]] = {}
        for step in self.steps:
            ahead = self.forecasts.get(step.name)
            if ahead is None or ahead.fits or self.forecaster is None:
                continue
            setting = self.forecaster.setting(step, self.launches[step.name])
            cure = cures.cheapest(self.forecaster, step, setting)
            if cure is None:
                yield (
                    f"{step.name} needs {size(ahead.peak)} on a rank, which has {size(ahead.room)}: no change of the "
                    "step makes it fit, but a machine with more memory would (--budget)"
                )
            else:
                cured.setdefault(str(cure), []).append((step.name, ahead, cure.forecast))
        for change, of_steps in cured.items():
            name, ahead, after = max(of_steps, key=lambda named: named[1].peak)
            others = f" (and {', '.join(other for other, *_ in of_steps if other != name)})" if of_steps[1:] else ""
            yield (
                f"{name}{others} needs {size(ahead.peak)} on a rank, which has {size(ahead.room)}: {change} makes it "
                f"{size(after.peak)}, in {after.seconds / ahead.seconds:.2f} times the time"
            )

    def _assumptions(self) -> Iterator[str]:
        assumed = dict.fromkeys(note for one in self.forecasts.values() for note in one.assumed)
        yield from self.failures
        if assumed:
            more = f"; and {len(assumed) - ASSUMED} more" if len(assumed) > ASSUMED else ""
            yield f"assumed: {'; '.join(list(assumed)[:ASSUMED])}{more}"


def measured(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of a step that is done: what it took, with what was forecast behind it."""
    ahead = record.get("forecast") or {}
    disk = sum(file.get("bytes", 0) for file in (record.get("files") or {}).values())
    peak, seconds = record.get("peak_bytes"), record.get("seconds")
    return (
        f"{size(peak)} measured" + (f" ({size(ahead['peak_bytes'])})" if ahead else ""),
        f"{duration(seconds)} measured" + (f" ({duration(ahead['seconds'])})" if ahead else ""),
        size(disk),
        amount(ahead["tokens"]) if ahead else DASH,
    )


def text(
    recipe: Recipe,
    steps: Sequence[Step],
    launched_on: Callable[[Step], Launch | None],
    machine: machines.Machine | None = None,
) -> str:
    """The forecast of a plan, for `machine` or the one at hand; where every step is done, only what was measured."""
    pending = [step for step in steps if not step.done]
    if pending and machine is None:
        machine = machines.at_hand()
    launches = {}
    for step in pending:
        launches[step.name] = launched_on(step) or Launch(1, on_cpu=True)
    return Outlook(steps, launches, machine).text(recipe.run)


def launch(machine: machines.Machine, step: Step) -> Launch:
    """The launch of a step on a machine that is not this one: a rank on each device, unless its configuration says."""
    config = yaml.safe_load(accelerate_config(step, "cpu" if machine.on_cpu else "ddp").read_text())
    return Launch(config.get("num_processes") or machine.count, machine.on_cpu)
