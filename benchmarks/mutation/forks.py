"""Runs of pytest, each in a fork of this process, which has imported the libraries once and nothing of the package."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

LIBRARIES = (
    "torch",
    "scipy.stats",
    "datasets",
    "transformers",
    "peft",
    "accelerate",
    "matplotlib.pyplot",
    "trl",
    "pytest",
)
TRAINERS = ("SFTTrainer", "RewardTrainer", "DPOTrainer", "GRPOTrainer", "RLOOTrainer")
Task = TypeVar("Task")


def prepare(libraries: Sequence[str] = LIBRARIES) -> None:
    """Imports what tests would import first, with one thread for each process."""
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", WANDB_MODE="offline", TOKENIZERS_PARALLELISM="false")
    for name in libraries:
        importlib.import_module(name)
    if "trl" in libraries:
        for name in TRAINERS:
            getattr(sys.modules["trl"], name)  # which it imports when asked


def each(
    tasks: Iterable[Task], run: Callable[[Task], int], jobs: int, log: Path, seconds: Callable[[Task], float]
) -> Iterator[tuple[Task, int, float, str]]:
    """Runs `run` of every task in a fork, `jobs` at once; yields the task, its exit code, seconds, and words.

    Seconds are the processor's. A fork that takes more of them than `seconds` of its task, or ten times that on the
    clock, is ended: its code is then below 0. What it prints goes through a file in `log`.
    """
    log.mkdir(parents=True, exist_ok=True)
    waiting, running = iter(tasks), {}
    while True:
        while len(running) < jobs and (task := next(waiting, None)) is not None:
            limit = seconds(task)
            running[_fork(run, task, log, limit)] = (task, time.monotonic() + 10 * limit)
        if not running:
            return
        time.sleep(0.05)
        for pid, (task, deadline) in list(running.items()):
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)  # what it has left
                del running[pid]
                words = log / f"{pid}.txt"
                yield task, os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, words.read_text()
                words.unlink()
            elif time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)


def _fork(run: Callable[[Any], int], task: Any, log: Path, limit: float) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        with open(log / f"{os.getpid()}.txt", "w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 2))
        code = run(task)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
