"""The forecast of a plan as text: a line for each step, the sum, the largest, what fits, and what was assumed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
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


# what has to be equal for two steps that follow each other to share a launch, None for one that shares none
Shares = Callable[[Step, Forecast, Engine], Hashable | None]


def alone(step: Step, forecast: Forecast, engine: Engine) -> None:
    """That a step shares its launch with none."""


class Outlook:
    """The forecasts of the steps of a plan that are still to run, beside what those that are done have taken.

    `launches` are those of the steps that are forecast, by their names; `keys` what `shares` says of those that may
    share one.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        launches: Mapping[str, Launch],
        machine: machines.Machine | None,
        shares: Shares = alone,
    ):
        self.steps, self.launches, self.shares = steps, launches, shares
        self.forecasts: dict[str, Forecast] = {}
        self.keys: dict[str, Hashable] = {}
        self.failures: list[str] = []
        self.forecaster = Forecaster(machine) if machine else None
        before: Hashable | None = None
        for step in steps:
            if self.forecaster and step.name in launches:
                before = self._look(self.forecaster, step, before)

    def _look(self, forecaster: Forecaster, step: Step, before: Hashable | None) -> Hashable | None:
        """Forecasts a step that comes after one with the key `before`, and returns its own."""
        launch, process = self.launches[step.name], forecaster.process
        forecaster.process = None
        try:
            ahead = forecaster.forecast(step, launch)
            key = self.shares(step, ahead, forecaster.setting(step, launch).engine)
            if key is not None and key == before:
                forecaster.process = process
                ahead = forecaster.forecast(step, launch)
            forecaster.follow(step, launch)
        except Exception as error:  # a stage from outside may fail in any way, and no plan is stopped by a guess
            self.failures.append(f"{step.name}: no forecast ({type(error).__name__}: {error})")
            return None
        self.forecasts[step.name] = ahead
        if key is not None:
            self.keys[step.name] = key
        return key

    @property
    def seconds(self) -> float:
        """What a clock shows of all that is still to run, its launches with it."""
        return sum(one.launch + one.seconds for one in self.forecasts.values())

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
        seconds, disk = self.seconds, sum(one.disk for one in ahead)
        count = sum(one.launch > 0 for one in ahead)
        there = sum(map(machines.used_disk, {step.dir for step in self.steps}))
        free = machines.free_disk(folder)
        launches = f"{count} launch{'es' if count > 1 else ''}"
        still = f"{duration(seconds)} still to run, in {launches}"
        yield f"forecast for {machine.count} x {machine.name} ({machine.source}): {still}"
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
    shares: Shares = alone,
) -> str:
    """The forecast of a plan, for `machine` or the one at hand; where every step is done, only what was measured."""
    pending = [step for step in steps if not step.done]
    if pending and machine is None:
        machine = machines.at_hand()
    launches = {}
    for step in pending:
        launches[step.name] = launched_on(step) or Launch(1, on_cpu=True)
    return Outlook(steps, launches, machine, shares).text(recipe.run)


def launch(machine: machines.Machine, step: Step) -> Launch:
    """The launch of a step on a machine that is not this one: a rank on each device, unless its configuration says."""
    config = yaml.safe_load(accelerate_config(step, "cpu" if machine.on_cpu else "ddp").read_text())
    return Launch(config.get("num_processes") or machine.count, machine.on_cpu)
