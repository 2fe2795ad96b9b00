"""What a step leaves on disk: a directory named by its fingerprint, published atomically, closed by done.json.

runs/steps/<kind>-<key>/output         the artifact: a model, a dataset or a report
                        done.json      written last, with the hashes of all that was written
                        metrics.jsonl  every metric that was logged
                        checkpoints/   the trainer's, to resume from
runs/<recipe>/<step>                   a link to it, under its name in a recipe (see recording/views.py)
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from trimtab.pipelines.planning import finished, manifests
from trimtab.pipelines.planning.files import sync, write_atomically

Keep = Literal["final", "adapter", "all"]  # of a training: the complete model, the adapter too, checkpoints too
logger = logging.getLogger(__name__)
PACKAGES = ("trimtab", "torch", "trl", "transformers", "accelerate", "peft", "datasets", "deepspeed", "vllm")


ADAPTER, CHECKPOINTS, PARTIAL = "adapter", "checkpoints", "output.partial"
BESIDE = ("metrics.jsonl", ADAPTER)  # what is kept beside the artifact, and hashed with it


def is_begun(directory: Path) -> bool:
    """Whether a step has begun to make its artifact, and has not published it."""
    return (directory / PARTIAL).is_dir()


def fresh(directory: Path) -> Path:
    """The empty folder in which a step makes its artifact before it is published."""
    partial = directory / PARTIAL
    _remove(partial)
    partial.mkdir(parents=True)
    return partial


def publish(directory: Path, record: dict[str, Any], keep: Keep = "all") -> dict[str, Any]:
    """Renames `output.partial` to `output`, then writes done.json with the files' hashes. Returns the record.

    A damaged artifact that was there is replaced now, and not before; where the new one has other bits, it is told.
    What is not to be kept is removed: an adapter before it is written down, checkpoints once nothing needs them.
    """
    partial, output = directory / PARTIAL, directory / finished.OUTPUT
    before = _manifest(directory)
    if keep == "final":
        _remove(directory / ADAPTER)
    files = manifests.write_down(partial)
    beside = manifests.write_down(directory, *BESIDE)
    _remove(directory / finished.DONE)  # without it the step is unfinished, whatever comes between
    _remove(output)
    os.replace(partial, output)
    sync(directory)
    time_now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    record = {**record, "files": files, "beside": beside, "versions": versions(), "finished": time_now}
    write_atomically(directory / finished.DONE, json.dumps(record, indent=2, default=str) + "\n")
    shutil.rmtree(directory / "parts", ignore_errors=True)  # not before: until here the step may have to go on
    if keep != "all":
        shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
    others = sorted(name for name in before.keys() & files.keys() if before[name] != files[name])
    if others:
        logger.warning("%s was made again, with other bits in %s", directory.name, ", ".join(others))
    return record


def read_done(directory: Path) -> dict[str, Any] | None:
    """The record of a finished step, or None. Raises ValueError for one that says nothing."""
    return finished.read(directory)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that make a result what it is."""
    installed = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[package] = metadata.version(package)
    return installed


def _manifest(directory: Path) -> manifests.Manifest:
    """What a finished step has written, nothing where that cannot be known."""
    try:
        return (finished.read(directory) or {}).get("files", {})
    except (OSError, ValueError):
        return {}


def _remove(path: Path) -> None:
    """Removes a folder, or whatever stands in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
