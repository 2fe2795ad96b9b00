"""One launcher at a time works on a recipe, and one at a time on a step, which recipes share."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
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


def step_lock(step: Step, agreed: Callable[[Take], str | None] = alone) -> contextlib.AbstractContextManager[None]:
    """Holds a step; while another process makes it, waits, and says who that is.

    Where several ranks hold it together, `agreed` gives all of them what one has found.
    """
    purpose = f"{step.recipe}/{step.name} ({shlex.join(sys.argv)})"

    def told(holder: str) -> None:
        say(f"    {step.name} is being made by {holder}. Waiting until that ends")

    return held(Lock(of_folder(step.dir), purpose), told, agreed)
