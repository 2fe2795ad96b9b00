"""One launcher at a time works in a run directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path


class Locked(Exception):
    """Another launcher works in the run directory."""


@contextlib.contextmanager
def lock(run: Path, command: str) -> Iterator[None]:
    """Holds the run directory for this process; raises Locked, naming the holder, when another one has it.

    The operating system drops the lock when the holder dies, however it dies.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Locked(f"{run} is in use by {file.read().strip() or 'another launcher'}: wait or stop it") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}: {command}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
