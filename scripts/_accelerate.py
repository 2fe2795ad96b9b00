"""accelerate's own command, which ends with the exit code of the rank that failed, and no traceback of the launcher's.

Whatever went wrong, the rank has said it.
"""

import logging
import runpy
import signal
import subprocess
import sys

from torch.distributed.elastic.multiprocessing import api
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def ended() -> int:
    """Runs the command of the words and returns its exit code: 128 and the signal's number where one ended a rank."""
    try:
        runpy.run_module("accelerate.commands.accelerate_cli", run_name="__main__", alter_sys=True)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
    except subprocess.CalledProcessError as error:
        code = error.returncode
    else:
        return 0
    if code < 0:
        print(f"error: a rank was ended by {signal.Signals(-code).name}", file=sys.stderr, flush=True)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    logging.getLogger(api.__name__).setLevel(logging.CRITICAL)
    sys.argv = [word for word in sys.argv if word != "--quiet"]  # with which it would end with 1, whatever the rank's
    sys.exit(ended())
