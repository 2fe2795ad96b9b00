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
from collections.abc import Callable

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


def launch(command: list[str], recipe: Recipe, meanwhile: Callable[[], None] = lambda: None) -> int:
    """Runs one launch in a process group of its own, calls `meanwhile` now and then, and leaves nothing running.

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
    child = subprocess.Popen(quiet, env=variables, start_new_session=True, preexec_fn=dying)

    def forward(number: int, frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            _kill(child)
            return
        print(
            f"\nasked to stop: waiting for a checkpoint, {grace:g} s at most (a second Ctrl-C ends it now)", flush=True
        )
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = _wait(child, received, grace, meanwhile)
    finally:
        _kill(child)  # workers that outlived their launcher
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 128 + received[0] if received else code


def _wait(child: subprocess.Popen, received: list[int], grace: float, meanwhile: Callable[[], None]) -> int:
    """Waits for the child; once a signal was handed on, for `grace` seconds, then ends it."""
    asked = math.inf  # when
    while True:
        try:
            return child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            meanwhile()
            if received:
                asked = min(asked, time.monotonic())
            if time.monotonic() - asked >= grace:
                print(f"no end within {grace:g} s (TRIMTAB_GRACE): ended without a checkpoint", flush=True)
                _kill(child)


def _kill(child: subprocess.Popen) -> None:
    """Ends the child and all that it has started, in whatever session."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(child.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
