"""A launch that is hit by signals at a moment of its work, and what that leaves behind."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil
from conftest import ROOT
from launches import MARK, Warm, ranks_command, ranks_words

TERM, INT = {143, -signal.SIGTERM}, {130, -signal.SIGINT}  # by our own handler, and before there is one
FAILED = {1, 137}  # where a part of a launch was killed: torch's agent and accelerate end with 1
KILLED = {-signal.SIGKILL}
MODES = ("train", "ranks", "run", "jobs")  # train.py, accelerate launch on two ranks of it, run.py, run.py --jobs 2
LAUNCHING = ("run", "jobs")
# what a launch may end with after each way of hitting it, where all steps were not done already
EXPECTED: dict[str, dict[str, set[int]]] = {
    "kill": dict.fromkeys(MODES, KILLED),  # every process at once, as a machine that loses its power
    "launcher": {"ranks": KILLED, "run": KILLED, "jobs": KILLED},
    "worker": {"ranks": FAILED, "run": FAILED, "jobs": FAILED},
    "term": {"train": TERM, "ranks": TERM | FAILED, "run": TERM, "jobs": TERM},
    "int": {"train": INT, "ranks": INT | FAILED, "run": INT, "jobs": INT},
    "term, term": {"train": TERM, "ranks": TERM | FAILED, "run": TERM, "jobs": TERM},
    "int, int": {"train": INT, "ranks": INT | FAILED, "run": INT, "jobs": INT},
}
# what a blow waits for, as what changes in the store
AIMS = {
    "a save begins": "*/checkpoints/checkpoint-*",
    "a save is written": "*/checkpoints/checkpoint-*/*",
    "a save is complete": "*/checkpoints/*/complete.json",
    "an artifact is written": "*/output.partial/*",
    "an artifact is published": "*/output",
    "a step is done": "*/done.json",
    "metrics are logged": "*/metrics.jsonl",
    "samples are kept": "*/parts/*",
    "scores are kept": "scored/*/rank-*",
}
PARTIAL = "*/output.partial"
HUNG = 60.0  # seconds after the last signal, when a launch is given up
LINGER = 5.0  # seconds in which the ranks of a launcher that was killed have to end


@dataclass
class Blow:
    """How a launch is hit: after `delay` seconds of work and then, with an aim, when that happens next.

    An `early` one counts its seconds from the start of the launch, which then still imports and plans.
    """

    signal: str
    delay: float
    aim: str | None = None
    early: bool = False
    patience: float = 15.0  # seconds for what is aimed at to happen


def start(warm: Warm, mode: str, recipe: Path, overrides: list[str], log: Path, *, real: bool):
    """A process of one of MODES whose output goes to `log`: a fork, or one that imports by itself."""
    several = ["--jobs", "2"] if mode == "jobs" else []
    script = [f"scripts/{'run' if mode in LAUNCHING else 'train'}.py", str(recipe), *overrides, *several]
    if real:
        command = ranks_command(recipe, *overrides) if mode == "ranks" else [sys.executable, *script]
        with log.open("w") as file:
            return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True,
                                    env=os.environ | MARK)  # fmt: skip
    kind, words = {"train": ("script", script), "run": ("run", script), "jobs": ("run", script),
                   "ranks": ("launch", ranks_words(recipe, *overrides))}[mode]  # fmt: skip
    return warm.start(kind, words, out=log)


def marked() -> set[int]:
    """Every living process that this one has started, by the mark in its environment; zombies are none."""
    mark = "=".join(*MARK.items()).encode()
    pids = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if mark in (folder / "environ").read_bytes().split(b"\0") and state != "Z":
                pids.add(int(folder.name))
    return pids


def is_locked(run: Path) -> bool:
    """Whether somebody still holds the lock of a run directory when all that were to end have ended."""
    end = time.monotonic() + LINGER
    while _is_held(run / ".lock"):
        if time.monotonic() > end:
            return True
        time.sleep(0.05)
    return False


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def await_moment(process, store: Path, blow: Blow, unfinished: dict) -> bool:
    """Waits for the blow's moment; False where the launch ends before. `unfinished` is what lay there at its start."""
    if not blow.early:
        _await(process, lambda: seen(store, PARTIAL) != unfinished, HUNG)
    _await(process, lambda: False, blow.delay)
    if blow.aim is not None:
        before = seen(store, AIMS[blow.aim])
        _await(process, lambda: seen(store, AIMS[blow.aim]) != before, blow.patience)
    return process.poll() is None


def _await(process, condition, seconds: float) -> None:
    """Waits for a condition or the end of the process, this long."""
    end = time.monotonic() + seconds
    while process.poll() is None and not condition() and time.monotonic() < end:
        time.sleep(0.003)


def strike(process, blow: Blow, rng: Random) -> None:
    """Sends the signals."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        if blow.signal in ("kill", "worker"):
            workers = _workers(process)
            while blow.signal == "worker" and not workers and process.poll() is None:
                workers = _workers(process)
            victims = [process, *workers] if blow.signal == "kill" else [rng.choice(workers)]
            for victim in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim.pid, signal.SIGKILL)
        elif blow.signal == "launcher":
            os.kill(process.pid, signal.SIGKILL)
        else:
            for number, word in enumerate(blow.signal.split(", ")):
                time.sleep(number * rng.uniform(0.02, 0.3))
                # a terminal sends SIGINT to its whole group, a scheduler SIGTERM to whom it has started
                (os.killpg if word == "int" else os.kill)(process.pid, getattr(signal, f"SIG{word.upper()}"))


def _workers(process) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


def await_end(process, patience: float = HUNG) -> tuple[int | None, float]:
    """The exit code, None for a launch that had to be ended by force, and the seconds until then."""
    started = time.monotonic()
    while process.poll() is None:
        if time.monotonic() > started + patience:
            for victim in [*_workers(process), process]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim.pid, signal.SIGKILL)
            return None, patience
        time.sleep(0.01)
    return process.poll(), time.monotonic() - started


def orphans(before: set[int]) -> list[int]:
    """The processes that outlive their launch, which are ended: all that were not there before it."""
    end = time.monotonic() + LINGER
    while (left := marked() - before) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return sorted(left)


def seen(store: Path, pattern: str) -> dict[Path, tuple[int, int]]:
    """The paths of a pattern in a store, with what changes when they are written again.

    The inode says nothing: a file system gives a folder that is made again the one that it has just set free.
    """
    paths = {}
    for path in store.glob(pattern):
        with contextlib.suppress(OSError):
            status = path.stat()
            paths[path] = (status.st_ctime_ns, status.st_size)
    return paths
