"""One launcher at a time works on a recipe, and one at a time on a step, which recipes share."""

from __future__ import annotations

import contextlib
import functools
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.pipelines.planning.recipe import Step
from trimtab.pipelines.recording.locks import Lock, Take, alone, held, of_folder
from trimtab.pipelines.running import disk
from trimtab.pipelines.running.environment import say


class Locked(Exception):
    """Another launcher works in the run directory."""


@contextlib.contextmanager
def lock(run: Path, command: str) -> Iterator[None]:
    """Holds the run directory for this process; raises Locked, naming the holder, when another one has it.

    Raises disk.Refused where there can be no such directory, or nothing can be written into it.
    """
    of_run = Lock(run / ".lock", command)
    try:
        holder = of_run.take()
    except OSError as error:
        refused = disk.refusal(error, run)
        if refused is None:
            raise
        raise disk.Refused(refused) from error
    if holder:
        raise Locked(f"{run} is in use by {holder}: wait or stop it")
    try:
        yield
    finally:
        of_run.release()


@dataclass
class StepLocks:
    """The locks of steps that are made one after the other."""

    steps: list[Step]
    locks: list[Lock]

    def release_done(self) -> None:
        """Gives back those of steps that are done, which others may wait for."""
        for step, lock in zip(self.steps, self.locks, strict=True):
            if lock.file and step.done:
                lock.release()


@contextlib.contextmanager
def step_locks(steps: Sequence[Step]) -> Iterator[StepLocks]:
    """Holds the first of some steps as `step_lock` does, and those after it up to one that another process has.

    What is waited for is the first one alone, while nothing is held: so no two launchers can wait for each other.
    """
    first, *others = steps
    of_first = lock_of(first)
    with held(of_first, functools.partial(_tell, first)):
        taken = StepLocks([first], [of_first])
        try:
            for step in others:
                lock = lock_of(step)
                if lock.take():
                    break
                taken.steps.append(step)
                taken.locks.append(lock)
            yield taken
        finally:
            for lock in taken.locks[1:]:
                lock.release()


def step_lock(step: Step, agreed: Callable[[Take], str | None] = alone) -> contextlib.AbstractContextManager[None]:
    """Holds a step; while another process makes it, waits, and says who that is.

    Where several ranks hold it together, `agreed` gives all of them what one has found.
    """
    return held(lock_of(step), functools.partial(_tell, step), agreed)


def lock_of(step: Step) -> Lock:
    """The lock of a step, which says what this process takes it for."""
    return Lock(of_folder(step.dir), f"{step.recipe}/{step.name} ({shlex.join(sys.argv)})")


def _tell(step: Step, holder: str) -> None:
    say(f"    {step.name} is being made by {holder}. Waiting until that ends")
