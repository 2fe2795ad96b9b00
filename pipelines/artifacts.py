"""What a step leaves on disk: a directory named by its fingerprint, published atomically, closed by done.json.

runs/<recipe>/<step>-<fingerprint>/output         the artifact: a model, a dataset or a report
                                   done.json      written last: a step is done when it exists
                                   metrics.jsonl  every metric that was logged
                                   checkpoints/   the trainer's, to resume from
runs/<recipe>/<step>                              a link to the newest, for people
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

# Options that cannot change a step's result, so that changing them retrains nothing. Saving and evaluating are not
# neutral when `load_best_model_at_end` chooses among checkpoints: see `neutral`.
NEUTRAL = (
    "report_to logging_dir logging_strategy logging_steps logging_first_step log_level log_level_replica "
    "log_on_each_node logging_nan_inf_filter disable_tqdm dataset_num_proc dataloader_num_workers "
    "dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor ddp_timeout push_to_hub "
    "hub_model_id hub_strategy hub_private_repo hub_always_push hub_revision skip_memory_metrics project"
).split()
NEUTRAL_UNLESS_BEST = "save_strategy save_steps save_total_limit save_on_each_node eval_strategy eval_steps".split()
# Of a reward's block: how it is asked, not what it says.
NEUTRAL_REWARD = "timeout connect_timeout tries deadline concurrency max_response_mb token_env device".split()
PACKAGES = ("trimtab", "torch", "trl", "transformers", "accelerate", "peft", "datasets", "deepspeed", "vllm")


class Locked(Exception):
    """Another launcher works in the run directory."""


def neutral(block: dict[str, Any]) -> set[str]:
    """The keys of a `train` block that stay out of the fingerprint."""
    return set(NEUTRAL) | (set() if block.get("load_best_model_at_end") else set(NEUTRAL_UNLESS_BEST))


def fingerprint(value: Any) -> str:
    """8 hex digits of the SHA-256 of a JSON-like value with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def is_local(text: str) -> bool:
    """Whether a string of a recipe names a file or folder of this machine.

    A bare word ("train") never does, whatever lies in the current folder; "./train" and "data/train.jsonl" may.
    """
    return ("/" in text or "." in text) and "\n" not in text and len(text) < 4096 and Path(text).expanduser().exists()


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file, or of the relative names and contents of a folder's files (hidden ones left out).

    Large files are remembered by size and time of change, so that planning does not read a model's weights each time.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return _file_hash(path)
    files = (p for p in sorted(path.rglob("*")) if p.is_file())
    visible = [p for p in files if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    return fingerprint({str(p.relative_to(path)): _file_hash(p) for p in visible})


def _file_hash(path: Path) -> str:
    status = path.stat()
    if status.st_size < 1 << 24:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    key = fingerprint([str(path.resolve()), status.st_size, status.st_mtime_ns])
    memo = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "trimtab" / "sha256" / key
    if memo.exists():
        return memo.read_text()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a read-only home costs time, not the run
        memo.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memo, digest)
    return digest


def write_atomically(path: Path, text: str) -> None:
    """Writes under a temporary name, syncs and renames: a reader sees the old file or the whole new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(name, 0o644)
    os.replace(name, path)
    _sync(path.parent)


def fresh(directory: Path) -> Path:
    """The empty folder in which a step makes its artifact before it is published."""
    partial = directory / "output.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def publish(directory: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Renames `output.partial` to `output`, then writes done.json with the files' hashes. Returns the record."""
    partial, output = directory / "output.partial", directory / "output"
    files = {}
    for file in sorted(p for p in partial.rglob("*") if p.is_file()):
        with file.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            os.fsync(handle.fileno())
        files[str(file.relative_to(partial))] = {"sha256": digest, "bytes": file.stat().st_size}
    shutil.rmtree(output, ignore_errors=True)  # left by a run that died before its done.json
    os.replace(partial, output)
    _sync(directory)
    record = {**record, "files": files, "versions": versions(), "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    write_atomically(directory / "done.json", json.dumps(record, indent=2, default=str) + "\n")
    shutil.rmtree(directory / "parts", ignore_errors=True)  # not before: until here the step may have to go on
    return record


def read_done(directory: Path) -> dict[str, Any] | None:
    """The record of a finished step, or None."""
    try:
        return json.loads((directory / "done.json").read_text())
    except FileNotFoundError:
        return None


def stop(output: Path, reason: str) -> None:
    """Leaves the note, in a step's artifact, that what comes of it is not to be made."""
    (output / "stopped.json").write_text(json.dumps({"reason": reason}) + "\n")


def stopped(output: Path) -> str | None:
    """The reason in such a note, or None."""
    try:
        return json.loads((output / "stopped.json").read_text())["reason"]
    except FileNotFoundError:
        return None


def reasons(inputs: Iterable[Any]) -> list[str]:
    """The reasons among the artifacts of steps."""
    return [reason for step in inputs if (reason := stopped(step.output))]


def link(directory: Path, name: str) -> None:
    """Points `runs/<recipe>/<step>` at the step's directory."""
    temporary = directory.parent / f".{name}.{os.getpid()}"
    temporary.symlink_to(directory.name)
    os.replace(temporary, directory.parent / name)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that make a result what it is."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@contextlib.contextmanager
def lock(run: Path, command: str) -> Iterator[None]:
    """Holds the run directory for this process; raises Locked, naming the holder, when another one has it.

    The operating system drops the lock when the holder dies, however it dies.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Locked(f"{run} is in use by {file.read().strip() or 'another launcher'}: wait or stop it") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}: {command}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
