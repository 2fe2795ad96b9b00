"""The processes of one launch: what they are told, how signals reach them, and that none of them is left."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import psutil

from trimtab.pipelines import ROOT
from trimtab.pipelines.planning import commands
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import consents, orphans

QUIET = ROOT / "scripts" / "_accelerate.py"  # accelerate's command, with the exit code of the rank that failed
GRACE = 300.0  # seconds between asking the ranks to stop and killing them: a large model's checkpoint takes minutes


def handed_down(recipe: Recipe) -> dict[str, str]:
    """The environment variables by which the ranks of a launch know of their launcher, and come to its plan."""
    return {"TRIMTAB_LOCK": str(recipe.run.resolve()), **consents.handed_down(recipe), **recipe.ranks.handed_down()}


def launch(
    command: list[str],
    recipe: Recipe,
    meanwhile: Callable[[], None] = lambda: None,
    shares: Sequence[dict[str, str]] = ({},),
) -> int:
    """Runs one launch in a process group of its own, calls `meanwhile` now and then, and leaves nothing running.

    With several `shares`, environment variables, one launch for each at the same time; when one of them fails, the
    others are asked to stop.

    The first SIGINT or SIGTERM is handed on, once, and the ranks have TRIMTAB_GRACE seconds to leave a checkpoint; a
    second one ends them at once. The exit code is then 128 and the first signal's number.
    """
    grace = float(os.environ.get("TRIMTAB_GRACE", GRACE))
    waits = str(math.ceil(grace) + 1)  # by whole seconds; ours end first, and say so
    variables = os.environ | handed_down(recipe) | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": waits}
    words = shlex.join(command)
    if "/cpu.yaml" in words and "--num_processes" not in words:
        # accelerate would choose so too, with a warning at each launch
        variables.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    received: list[int] = []
    quiet = [sys.executable, str(QUIET), *command[len(commands.ACCELERATE) :]]
    dying = functools.partial(orphans.die_with, os.getpid())
    children = [
        subprocess.Popen(quiet, env=variables | share, start_new_session=True, preexec_fn=dying) for share in shares
    ]

    def forward(number: int, frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            _kill(children)
            return
        print(
            f"\nasked to stop: waiting for a checkpoint, {grace:g} s at most (a second Ctrl-C ends it now)", flush=True
        )
        _signal(children, number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = _wait(children, received, grace, meanwhile)
    finally:
        _kill(children)  # workers that outlived their launcher
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 128 + received[0] if received else code


def _wait(
    children: Sequence[subprocess.Popen], received: list[int], grace: float, meanwhile: Callable[[], None]
) -> int:
    """Waits for the children, and returns the code of the first that failed, else 0.

    Once one has failed or a signal was handed on, the others have `grace` seconds to end.
    """
    failed = 0
    asked = math.inf  # when
    while running := [child for child in children if child.poll() is None]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            running[0].wait(timeout=0.5)
        meanwhile()
        if not failed and (failed := _failed(children)) and not received:
            _signal(children, signal.SIGTERM)
        if failed or received:
            asked = min(asked, time.monotonic())
        if time.monotonic() - asked >= grace:
            print(f"no end within {grace:g} s (TRIMTAB_GRACE): ended without a checkpoint", flush=True)
            _kill(children)
    return failed or _failed(children)


def _failed(children: Sequence[subprocess.Popen]) -> int:
    """The code of a child that has ended with another than 0, else 0."""
    return next((child.returncode for child in children if child.returncode), 0)


def _signal(children: Sequence[subprocess.Popen], number: int) -> None:
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)


def _kill(children: Sequence[subprocess.Popen]) -> None:
    """Ends the children and all that they have started, in whatever session."""
    family: list[psutil.Process] = []
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            family += psutil.Process(child.pid).children(recursive=True)
    _signal(children, signal.SIGKILL)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
