"""accelerate's own command, which ends with the exit code of the rank that failed, and no traceback of the launcher's.

Whatever went wrong, the rank has said it. A signal is the ranks' to answer: this process waits for them.
"""

import contextlib
import logging
import os
import runpy
import signal
import subprocess
import sys


class Asked(BaseException):
    """This process was asked to stop, by the signal of this number."""


def ask(number: int, frame: object) -> None:
    """What SIGINT and SIGTERM do until torch's launcher, where there is one, gives them its own meaning."""
    raise Asked(number)


for stop in (signal.SIGINT, signal.SIGTERM):
    signal.signal(stop, ask)

from torch.distributed.elastic.multiprocessing.api import SignalException  # noqa: E402
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: E402


def ended() -> int:
    """Runs the command of the words and returns its exit code: 128 and the signal's number where one ended a rank."""
    try:
        runpy.run_module("accelerate.commands.accelerate_cli", run_name="__main__", alter_sys=True)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
    except subprocess.CalledProcessError as error:
        code = error.returncode
    except SignalException as error:  # torch has handed it on, and waited
        return 128 + error.sigval
    else:
        return 0
    if code < 0:
        print(f"error: a rank was ended by {signal.Signals(-code).name}", file=sys.stderr, flush=True)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    os.environ["TRIMTAB_LAUNCHER"] = str(os.getpid())  # its ranks end with it: see pipelines/running/orphans.py
    for room in ("agent.server.api", "multiprocessing.api"):  # each has a level of its own
        logging.getLogger(f"torch.distributed.elastic.{room}").setLevel(logging.CRITICAL)
    sys.argv = [word for word in sys.argv if word != "--quiet"]  # with which it would end with 1, whatever the rank's
    try:
        sys.exit(ended())
    except Asked as asked:
        with contextlib.suppress(ChildProcessError):  # until there is no child left, which has had the signal, too
            while True:
                os.wait()
        sys.exit(128 + asked.args[0])
