"""The forecast of a step: its peak of memory, whether it fits, its place on disk, its tokens and its time."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from trimtab.pipelines.forecasting import amounts, disk, memory
from trimtab.pipelines.forecasting.known import Known, Memory
from trimtab.pipelines.forecasting.machines import Machine
from trimtab.pipelines.forecasting.setting import Setting, of_stage
from trimtab.pipelines.forecasting.work import Work
from trimtab.pipelines.planning.commands import accelerate_config
from trimtab.pipelines.planning.recipe import Launch, Step
from trimtab.pipelines.recording import usage

logger = logging.getLogger(__name__)
TRAINER = "trl.trainer.base_trainer"  # the module that is imported with any trainer


@dataclass(frozen=True)
class Forecast:
    """What a step will take of a machine.

    `parts` are those of the peak, in bytes of a rank. `processor_seconds` are those of all threads of a rank, where
    the machine is a CPU; `seconds` what a clock shows. `disk` is the artifact and the checkpoints that stay. `launch`
    are the seconds before a step that begins a launch, 0 for one that goes on in that of the step before.
    """

    parts: dict[str, float]
    seconds: float
    processor_seconds: float
    tokens: float
    disk: float
    room: float
    assumed: tuple[str, ...] = ()
    launch: float = 0.0

    @property
    def peak(self) -> float:
        """The bytes of a rank at the most."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether a rank has that much room."""
        return self.peak <= self.room

    def record(self) -> dict[str, float]:
        """What done.json keeps of it, to stand beside what was measured."""
        return {
            "peak_bytes": round(self.peak),
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.processor_seconds, 3),
            "tokens": round(self.tokens),
            "disk_bytes": round(self.disk),
        }


@dataclass(frozen=True)
class Process:
    """What a process has of the steps before: bytes that it holds, and whether a trainer is imported."""

    held: float = 0.0
    has_trainer: bool = False


class Forecaster:
    """Forecasts the steps of a plan, looking up once what several of them name.

    A step goes on in `process`, that of the step that was followed last; with None, it begins a launch.
    """

    def __init__(self, machine: Machine, process: Process | None = None):
        self.machine, self.process = machine, process
        self.memory = Memory()
        self.works: dict[tuple[Path, Setting], tuple[Work, tuple[str, ...]]] = {}

    def setting(self, step: Step, launch: Launch) -> Setting:
        """How the step would lie on the machine, as its recipe says."""
        config = yaml.safe_load(accelerate_config(step, None if self.machine.on_cpu else "ddp").read_text())
        setting = of_stage(self.memory.stage(step), launch, config, step.options.get("train") or ())
        return setting if step.batch is None else replace(setting, tokens=step.batch.tokens)

    def forecast(self, step: Step, launch: Launch) -> Forecast:
        """The forecast of a step as its recipe says it."""
        return self.under(step, self.setting(step, launch))

    def follow(self, step: Step, launch: Launch) -> None:
        """Takes the steps that are forecast next to run in the process of this one, after it."""
        setting = self.setting(step, launch)
        work, _ = self.work(step, setting)
        before = self.process or Process()
        left = memory.left(work, memory.parts(work, setting, self.machine.sizes), self.machine.sizes)
        self.process = Process(max(before.held, left), before.has_trainer or work.libraries == "trainer")

    def of_batch(self, step: Step, launch: Launch, batch: int) -> Forecast:
        """The forecast of a step with that many rows of the same batch on a rank at once."""
        setting = self.setting(step, launch)
        accumulation = setting.batch * setting.accumulation // batch
        return self.under(step, replace(setting, batch=batch, accumulation=accumulation))

    def under(self, step: Step, setting: Setting) -> Forecast:
        """The forecast of a step that lies otherwise on the machine."""
        work, assumed = self.work(step, setting)
        stage = self.memory.stage(step)
        written, kept = disk.checkpoints(stage, work, setting)
        left = disk.artifact(stage, work)
        process = self.process or Process()
        of_step = amounts.of(work, setting, written + left, imports=not process.has_trainer)
        taken = self.machine.seconds(of_step, amounts.weights_read(work, setting), bf16=setting.bf16)
        ranks_of_machine = setting.ranks if self.machine.on_cpu else 1
        return Forecast(
            parts=memory.parts(work, setting, self.machine.sizes, process.held),
            seconds=self.machine.elapsed(taken),
            processor_seconds=taken,
            tokens=amounts.tokens(work, setting),
            disk=left + kept,
            room=self.machine.memory / ranks_of_machine,
            assumed=assumed,
            launch=self.machine.launch if self.process is None else 0.0,
        )

    def work(self, step: Step, setting: Setting) -> tuple[Work, tuple[str, ...]]:
        """What the step does, as its stage says it, and what was assumed of it."""
        if (step.dir, setting) not in self.works:
            known = Known(step, setting, self.memory)
            work = known.stage.work(known)
            self.works[step.dir, setting] = work, tuple(dict.fromkeys(known.assumed))
        return self.works[step.dir, setting]


def record(step: Step, launch: Launch) -> dict[str, float] | None:
    """What a step is forecast to take of the machine that it is about to run on; None where nobody can say."""
    from trimtab.pipelines.forecasting import machines

    try:
        process = Process(usage.resident(), TRAINER in sys.modules)
        return Forecaster(machines.at_hand(), process).forecast(step, launch).record()
    except Exception as error:  # a stage from outside may fail in any way, and no step is stopped by a guess
        logger.info("%s: no forecast (%s: %s)", step.name, type(error).__name__, error)
        return None
