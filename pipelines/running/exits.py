"""A command's exit code says what became of its work, whoever tries to end its process from inside.

A reward that calls sys.exit(0) or os._exit(0) would end a training with the exit code of success. Code of the user's
may do so in any step and in any thread, and also while a plan imports it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec

from trimtab.pipelines.planning import tracebacks
from trimtab.pipelines.running.environment import LAUNCHED, say
from trimtab.pipelines.running.failures import FAULT

INTERRUPTED = 128 + signal.SIGINT
Words = ParamSpec("Words")


class CtrlC(KeyboardInterrupt):
    """A person has asked this process to stop, unlike a KeyboardInterrupt that code raises."""


def command(function: Callable[Words, int]) -> Callable[Words, int]:
    """Makes sure that a command's exit code is 0 only where the command itself has returned it.

    It is 1 where code inside has called sys.exit or os._exit(0), with the file and line, and 130 after Ctrl-C.
    """

    @functools.wraps(function)
    def guarded(*args: Words.args, **kwargs: Words.kwargs) -> int:
        with _interruptible(), _guarded_exit():
            try:
                return function(*args, **kwargs)
            except CtrlC:
                if not LAUNCHED:  # the launcher says it
                    say("\nstopped by Ctrl-C. The same command continues here")
                return INTERRUPTED
            except (SystemExit, KeyboardInterrupt) as error:
                print(f"\nerror: {tracebacks.ended(error)}", file=sys.stderr, flush=True)
                return FAULT

    return guarded


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Lets the first Ctrl-C end the work inside in good order, and a second one end it at once."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        yield
        return

    def first(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise CtrlC

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
