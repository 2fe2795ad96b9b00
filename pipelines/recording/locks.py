"""Locks on files that say who holds them. The operating system drops one when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

WITHOUT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what a file system answers that has no locks
TRIES, PAUSE = 3, 0.05  # a look at the lock takes it for a moment
POLL = 1.0  # seconds between two looks of one who waits
FOLDER = ".locks"
Take = Callable[[], str | None]  # what Lock.take is
logger = logging.getLogger(__name__)


class Lock:
    """A lock on a file; whoever takes it writes down who it is, and for what."""

    def __init__(self, path: Path, purpose: str):
        self.path, self.purpose = path, purpose
        self.file: TextIO | None = None

    def take(self) -> str | None:
        """Takes it and returns None, or returns who has it. Raises OSError where there can be no such file.

        On a file system without locks it is taken, with a warning.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+")
        for _ in range(TRIES):
            if _flocked(file, fcntl.LOCK_EX):
                break
            time.sleep(PAUSE)
        else:
            with file:
                return _said(file) or "another process"
        self.file = file
        file.truncate(0)
        holder = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}: {self.purpose}\n"
        with contextlib.suppress(OSError):  # on a full disk it is held without a name
            os.write(file.fileno(), holder.encode())
        return None

    def release(self) -> None:
        """Gives it back."""
        if self.file:
            with self.file as file:
                file.truncate(0)
        self.file = None


def holder(path: Path) -> str | None:
    """Who has the lock on a file, None where nobody has."""
    try:
        file = path.open()
    except OSError:
        return None
    with file:
        said = _said(file)
        return said if said and not _flocked(file, fcntl.LOCK_SH) else None


def of_folder(folder: Path) -> Path:
    """The file whose lock is that of a step's folder. It lies beside that, so it outlives it."""
    return folder.parent / FOLDER / folder.name


def alone(take: Take) -> str | None:
    """What this process finds, which is the only one that asks."""
    return take()


def of_main(ask: Callable[[], Any]) -> Any:
    """What the main process of a group finds, on every rank of it."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    answer = [ask() if PartialState().is_main_process else None]
    return broadcast_object_list(answer)[0]


@contextlib.contextmanager
def held(lock: Lock, told: Callable[[str], None], agreed: Callable[[Take], str | None] = alone) -> Iterator[None]:
    """Holds a lock; while another process has it, waits, and tells who that is.

    `agreed` calls a function on one rank of several and gives all of them what it returns.
    """
    waiting = False
    while holder := agreed(lock.take):
        if not waiting:
            told(holder)
        waiting = True
        time.sleep(POLL)
    try:
        yield
    finally:
        lock.release()


def _said(file: TextIO) -> str:
    file.seek(0)
    return file.read().strip()


def _flocked(file: TextIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT:
            raise
        where = "on this file system nothing can be locked"
        logger.warning("%s (%s): two processes must not make the same step at once", where, error.strerror)
    return True
