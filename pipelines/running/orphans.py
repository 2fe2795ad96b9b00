"""No process of a launch goes on without the one that started it. Nothing heavy is imported here: it comes first."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

LAUNCHER = "TRIMTAB_LAUNCHER"  # the process id that a launch tells its ranks
AT_START = os.getppid()


def is_launched() -> bool:
    """Whether this process is a rank that a launcher has started."""
    return "TRIMTAB_LOCK" in os.environ or "LOCAL_RANK" in os.environ


def die_with(parent: int) -> None:
    """Asks Linux to end this process when its parent dies, even by SIGKILL; where it is dead already, ends it now."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: of a parent that is alive at this moment
    if os.getppid() != parent:  # whoever takes orphans in, which need not be process 1
        os._exit(128 + signal.SIGKILL)


def die_with_launcher() -> None:
    """Ties a rank to its launcher: the one that it was told of, else whoever was its parent when this was imported."""
    if is_launched():
        die_with(int(os.environ.pop(LAUNCHER, AT_START)))
