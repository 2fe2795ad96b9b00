"""Ends a process that stands still, with words that name the place and the stacks of its threads.

A rank that hangs (a reward that never answers, a lost peer) would hold a whole cluster until somebody looks. Whatever
has to move has a deadline of its own, on each rank: TRIMTAB_STALL seconds, an hour without it, and 0 for never.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
from collections.abc import Iterator

_parts: list[Watch] = []  # those that are watched now, each inside the one before
_step = ""  # the one that this process works on
STALLED = 86  # the exit code of a rank that stood still


def enter(step: str) -> None:
    """Says which step this process works on from now on."""
    global _step
    _step = step


class Watch:
    """Watches from `begin` to `end`, in which `moved` has to be called again and again with the place at hand."""

    def __init__(self, place: str):
        self.place = place
        self.rank = os.environ.get("RANK", "0")
        self.seconds = float(os.environ.get("TRIMTAB_STALL", "3600"))
        self._beat = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Starts to watch, where there is a deadline."""
        if self.seconds > 0:
            self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")
            self._thread.start()

    def moved(self, place: str) -> None:
        """Says that something has happened, and where it stands now."""
        self.place = place
        self._beat.set()

    def end(self) -> None:
        """Stops watching, after what went well or badly."""
        self._over.set()
        self._beat.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    def _watch(self) -> None:
        while not self._over.is_set():
            if not self._beat.wait(self.seconds) and not self._over.is_set():
                told = f"{_step}: rank {self.rank} has stood still for {self.seconds:g} s {self.place}"
                print(f"error: {told}; its threads:", file=sys.stderr, flush=True)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(STALLED)
            self._beat.clear()


@contextlib.contextmanager
def part(place: str) -> Iterator[None]:
    """Watches one part of a step's work: `moved` is called in it, or it ends, or else the process does."""
    watch = Watch(place)
    _parts.append(watch)
    watch.begin()
    try:
        yield
    finally:
        watch.end()
        _parts.remove(watch)


def moved() -> None:
    """Says that something has happened in all parts at hand."""
    for watch in _parts:
        watch.moved(watch.place)
