"""Marks the checkpoints that a trainer has finished, prunes old ones, and finds the newest that is as it was saved.

The Trainer writes straight into `checkpoint-N/`, without a temporary name, and `get_last_checkpoint` takes the highest
N whether it was finished or not, and whatever has happened to its files since. So a callback marks a checkpoint after
all ranks have written it: the mark holds the hash of every file, and only a checkpoint whose files still have theirs
is gone on from. Old ones are removed after that, and not as the Trainer does it, which is before the new one is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerState, TrainingArguments

from trimtab.pipelines.planning.files import sync, write_atomically
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.training import circumstances
from trimtab.pipelines.training.finite import require_numbers

MARK = "complete.json"
NEEDED = ("trainer_state.json", "optim")  # a part of the names of files that no training goes on without
logger = logging.getLogger(__name__)


class MarkComplete(TrainerCallback):
    """Writes the mark once all files are on the disk, then removes all but the newest `limit` checkpoints."""

    def __init__(self, trainer: Any, limit: int | None):
        self.trainer, self.limit = trainer, limit

    def on_save(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        distributed = PartialState()
        distributed.wait_for_everyone()  # every rank saves its own random state
        require_numbers(self.trainer, state.global_step)
        if args.should_save:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_mark(checkpoint, {"circumstances": circumstances.here(), "logged": tracking.position()})
            if self.limit:
                prune(checkpoint, self.limit, best=state.best_model_checkpoint)
        distributed.wait_for_everyone()


def write_mark(checkpoint: Path, facts: Mapping[str, Any]) -> None:
    """Marks a checkpoint as complete, with the facts, when all its files are on the disk."""
    mark = checkpoint / MARK
    mark.unlink(missing_ok=True)  # of one that was passed over, and is saved again
    everything = sorted(checkpoint.rglob("*"))
    for path in everything:
        sync(path)
    files = _hashed(checkpoint, [path for path in everything if path.is_file()])
    write_atomically(mark, json.dumps({**facts, "files": files}, indent=1))
    sync(checkpoint.parent)


def read_mark(checkpoint: Path) -> dict[str, Any]:
    """What the mark of a complete checkpoint says."""
    return json.loads((checkpoint / MARK).read_text())


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is as it was saved, or None. Says which ones it passed over, and why."""
    candidates = _newest_first(folder)
    for checkpoint in candidates:
        wrong = damage(checkpoint)
        if wrong is None:
            return checkpoint
        logger.warning("%s is passed over: %s", checkpoint, wrong)
    if candidates:
        logger.warning("no checkpoint in %s can be gone on from: the training begins anew", folder)
    return None


def newest_bytes(folder: Path) -> int:
    """The bytes of the newest checkpoint that is marked, 0 where there is none."""
    for checkpoint in _newest_first(folder):
        if (checkpoint / MARK).exists():
            return sum(facts["bytes"] for facts in read_mark(checkpoint)["files"].values())
    return 0


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or with the best one so far that it refers to; None where all is well."""
    wrong = _damaged_file(checkpoint)
    if wrong is not None:
        return wrong
    best = json.loads((checkpoint / "trainer_state.json").read_text())["best_model_checkpoint"]
    if best is None or Path(best).name == checkpoint.name:
        return None
    wrong = _damaged_file(checkpoint.parent / Path(best).name)
    return f"the best one so far is {Path(best).name}, and {wrong}" if wrong else None


def _damaged_file(checkpoint: Path) -> str | None:
    """The first file that is not as it was saved, in words, or None."""
    try:
        saved = dict(read_mark(checkpoint)["files"])
        sizes = {name: facts["bytes"] for name, facts in saved.items()}
    except FileNotFoundError:
        return f"it has no {MARK}, as when saving it was interrupted"
    except (OSError, ValueError, KeyError, TypeError):
        return f"its {MARK} is damaged, or of an older version, which kept no hashes"
    for part in NEEDED:
        if not any(part in name for name in saved):
            return f"it was saved without a file like {part}, so going on would give other weights"
    for name, size in sizes.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, and had {size} when it was saved"
    try:
        today = _hashed(checkpoint, [checkpoint / name for name in saved])
    except OSError as error:
        return f"it cannot be read ({error})"
    changed = [name for name in saved if today[name] != saved[name]]
    return f"{changed[0]} is damaged: its content is not what was saved" if changed else None


def prune(current: Path, limit: int, best: str | None) -> None:
    """Removes all checkpoints but `current`, the newest `limit - 1` complete ones before it, and the `best` one.

    Those of later steps are of a training before, which has gone on from an earlier one.
    """
    others = [path for path in _newest_first(current.parent) if path != current]
    before = [path for path in others if _step(path) < _step(current) and (path / MARK).exists()]
    kept = {path.name for path in before[: limit - 1]}
    for path in others:
        if path.name not in kept and path.name != Path(best or "").name:
            (path / MARK).unlink(missing_ok=True)  # first, so that what a kill leaves of it is not complete
            shutil.rmtree(path, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    checkpoints = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    return sorted(checkpoints, key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _hashed(folder: Path, paths: list[Path]) -> dict[str, dict[str, Any]]:
    """The hash and the size of files by their names in the folder; several at once, since hashing releases the GIL."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return {
            str(path.relative_to(folder)): facts for path, facts in zip(paths, pool.map(_facts, paths), strict=True)
        }


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}
