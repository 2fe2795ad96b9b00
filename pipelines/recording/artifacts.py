"""What a step leaves on disk: a directory named by its fingerprint, published atomically, closed by done.json.

runs/<recipe>/<step>-<fingerprint>/output         the artifact: a model, a dataset or a report
                                   done.json      written last: a step is done when it exists
                                   metrics.jsonl  every metric that was logged
                                   checkpoints/   the trainer's, to resume from
runs/<recipe>/<step>                              a link to the newest, for people
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning.files import sync, write_atomically

PACKAGES = ("trimtab", "torch", "trl", "transformers", "accelerate", "peft", "datasets", "deepspeed", "vllm")


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
    sync(directory)
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


def link(directory: Path, name: str) -> None:
    """Points `runs/<recipe>/<step>` at the step's directory."""
    temporary = directory.parent / f".{name}.{os.getpid()}"
    temporary.symlink_to(directory.name)
    os.replace(temporary, directory.parent / name)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that make a result what it is."""
    installed = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[package] = metadata.version(package)
    return installed
