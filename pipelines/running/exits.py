"""A command's exit code says what became of its work, whoever tries to end its process from inside.

A reward that calls sys.exit(0) or os._exit(0) would end a training with the exit code of success. Code of the user's
may do so in any step and in any thread, and also while a plan imports it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec

from trimtab.pipelines.planning import tracebacks
from trimtab.pipelines.running.environment import LAUNCHED, say
from trimtab.pipelines.running.failures import FAULT
from trimtab.pipelines.training import interrupts

Words = ParamSpec("Words")


def command(function: Callable[Words, int]) -> Callable[Words, int]:
    """Makes sure that a command's exit code is 0 only where the command itself has returned it.

    It is 1 where code inside has called sys.exit or os._exit(0), with its file and line; after a signal, 130 or 143.
    """

    @functools.wraps(function)
    def guarded(*args: Words.args, **kwargs: Words.kwargs) -> int:
        with interrupts.heard(), _guarded_exit():
            try:
                return function(*args, **kwargs)
            except interrupts.Stopped as stopped:
                if not LAUNCHED:  # the launcher says it
                    say(f"\nstopped by {stopped}. The same command continues here")
                return 128 + stopped.number
            except (SystemExit, KeyboardInterrupt) as error:
                print(f"\nerror: {tracebacks.ended(error)}", file=sys.stderr, flush=True)
                return FAULT

    return guarded


@contextlib.contextmanager
def _guarded_exit() -> Iterator[None]:
    """Makes an os._exit(0) in this process say where it stands and end it with 1; forked children end as they like."""
    process, end = os.getpid(), os._exit

    def told(code: int) -> None:
        if os.getpid() == process and code == 0:
            frame = traceback.extract_stack(limit=2)[0]
            where = f"{tracebacks.shown(Path(frame.filename))}:{frame.lineno}"
            print(
                f"\nerror: {where} ended the process with os._exit(0) {tracebacks.UNDONE}", file=sys.stderr, flush=True
            )
            code = FAULT
        end(code)

    os._exit = told  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = end
