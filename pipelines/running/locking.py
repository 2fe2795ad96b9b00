"""One launcher at a time works in a run directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from trimtab.pipelines.running import disk


class Locked(Exception):
    """Another launcher works in the run directory."""


@contextlib.contextmanager
def lock(run: Path, command: str) -> Iterator[None]:
    """Holds the run directory for this process; raises Locked, naming the holder, when another one has it.

    Raises disk.Refused where there can be no such directory, or nothing can be written into it.
    The operating system drops the lock when the holder dies, however it dies.
    """
    with _opened(run) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Locked(f"{run} is in use by {file.read().strip() or 'another launcher'}: wait or stop it") from None
        file.truncate(0)
        holder = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}: {command}\n"
        with contextlib.suppress(OSError):  # on a full disk it is held without a name
            os.write(file.fileno(), holder.encode())
        try:
            yield
        finally:
            file.truncate(0)


def _opened(run: Path) -> TextIO:
    try:
        run.mkdir(parents=True, exist_ok=True)
        return (run / ".lock").open("a+")
    except OSError as error:
        refused = disk.refusal(error, run)
        if refused is None:
            raise
        raise disk.Refused(refused) from error
