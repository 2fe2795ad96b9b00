"""SIGINT (Ctrl-C) and SIGTERM: the first one asks this process to stop, and a second one ends it at once.

Loading, sampling, scoring and evaluating can be left anywhere, since what they have finished is on the disk: there the
first signal raises `Stopped`. A training only notes it, ends after the step at hand, and keeps a checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TOGETHER = 0.5  # seconds in which two signals are one: a terminal's to all processes, and a launcher's to its workers
_asked = 0  # the signal that came first
_when = 0.0
_noted = False  # whether someone else looks at it
_process = 0  # that handles them


class Stopped(KeyboardInterrupt):
    """The process was asked to stop where it can be left; `number` is the signal's."""

    def __init__(self, number: int):
        self.number = number
        super().__init__("Ctrl-C" if number == signal.SIGINT else "SIGTERM")


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Handles both signals inside; in another than the main thread, where none arrives, it does nothing."""
    global _asked, _noted, _process
    _asked, _noted, _process = 0, False, os.getpid()
    former = {}
    with contextlib.suppress(ValueError):
        former = {number: signal.signal(number, _receive) for number in SIGNALS}
    try:
        yield
    finally:
        _process = 0
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Inside, the first signal raises nothing: whoever opens this asks for it."""
    global _noted
    _noted = True
    try:
        yield
    finally:
        _noted = False


def asked() -> int:
    """The signal by which this process was asked to stop, or 0."""
    return _asked


def leave_if_asked() -> None:
    """Raises Stopped for a signal that was only noted."""
    if _asked:
        raise Stopped(_asked)


def _receive(number: int, frame: FrameType | None) -> None:
    global _asked, _when
    if _asked == 0:
        _asked, _when = number, time.monotonic()
        if not _noted:
            raise Stopped(number)
    elif time.monotonic() - _when > TOGETHER:
        os._exit(128 + number)


def _forget() -> None:
    """Workers that are forked, as those that load data, leave a terminal's Ctrl-C to the process that ends them."""
    if _process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget)
