"""This process in its launch: its rank, its words, the environment that it wants, and how it ends."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Sequence

from trimtab.pipelines.planning.recipe import Step
from trimtab.pipelines.recording import tracking

MAIN = int(os.environ.get("RANK", "0")) == 0
LAUNCHED = "TRIMTAB_LOCK" in os.environ  # by running/launch.py, which holds the lock and prints the headings
# what a launcher tells a rank
RANK = ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
DEFAULTS = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "WANDB_SILENT": "true",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # threads that wait for the next product spin some 50 us: not at all is 1.6 times slower with small models,
    # and for long, two processes on the same cores slow each other 10-fold
    "GOMP_SPINCOUNT": "10000",
}


def prepare() -> None:
    """Sets sane process-wide defaults that a user's environment overrides."""
    # ends a second earlier: the interpreter's last collection would visit a million objects
    atexit.register(gc.freeze)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # of the library's own use of its own older names, which no user can change
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*gradient_checkpointing.*")
    warnings.filterwarnings("ignore", category=FutureWarning, message=r"`torch\.distributed\.")
    if not sys.stderr.isatty():  # bars of other libraries would fill a log
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")  # which ours ask themselves
    handler = logging.StreamHandler()
    handler.setFormatter(Told())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def be_verbose() -> None:
    """Has this process and its launches print every number of every log."""
    os.environ[tracking.VERBOSE] = "1"


class Told(logging.Formatter):
    """What Trimtab itself logs, as the rest of what it prints; of a library, also which one it is."""

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        whose = "" if record.name.startswith("trimtab.") else f" {record.name}:"
        return f"{level}:{whose} {super().format(record)}"


def be_plain_where_alone() -> None:
    """Forgets a launch of one rank, before the libraries look: DDP would copy every gradient, for nobody.

    An engine that shards is left as it is.
    """
    from trimtab.pipelines.trainers.seams.engines import sharding

    if os.environ.get("WORLD_SIZE") == "1" and not sharding():
        for name in RANK:
            os.environ.pop(name, None)


def spare_libraries() -> None:
    """Keeps the garbage collector from what is there by now, which is what has been imported.

    Libraries are a million objects, a quarter of a second at each of the collections that a step asks for. Who drops
    what was there, as a model that rewards shared, has to unfreeze.
    """
    gc.collect()
    gc.freeze()


def leave_process_group() -> None:
    """Leaves the process group, which a trainer's own end() would do too early for the steps after it."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def say(text: str) -> None:
    """Prints on the main rank."""
    if MAIN:
        print(text, flush=True)


def fail(message: str) -> int:
    """Prints the error, or one a line, on the main rank and returns the exit code of a mistake of the user's, 2."""
    if MAIN:
        for line in message.splitlines():
            print(f"error: {line}", file=sys.stderr, flush=True)
    return 2


def note(lines: Iterable[str]) -> None:
    """Prints what a person should know and nothing waits for."""
    for line in lines:
        if MAIN:
            print(f"note: {line}", file=sys.stderr, flush=True)


def show(steps: Sequence[Step]) -> None:
    """Prints what a person came for: the tables and the reports among the artifacts."""
    for step in steps:
        if (step.output / "summary.txt").exists():
            say("\n" + (step.output / "summary.txt").read_text(errors="replace"))
        if (step.output / "report.html").exists():
            say(f"report: {step.output / 'report.html'}")
