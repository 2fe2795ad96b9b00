"""The clock of requests: what time it is, and what is to happen later. A test puts another one in its place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Something that is going to happen, unless it is cancelled."""

    def cancel(self) -> None: ...


class Clock:
    """Seconds of this machine, from some moment on."""

    def now(self) -> float:
        return time.monotonic()

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Calls `action` in another thread when that many seconds have passed."""
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.start()
        return timer

    def wait(self, event: threading.Event, seconds: float) -> None:
        """Returns when that many seconds have passed, or the event is set."""
        event.wait(seconds)


clock = Clock()
