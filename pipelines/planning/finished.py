"""Whether a step is finished, by its done.json, and whether what it left is still what it wrote.

Sizes are compared at every look. Content is compared where it may be another: of a file that was changed after
done.json was written, and of one whose hash is known since something has read it (see files.known_hash). So a look
costs some microseconds a file, and whatever a thorough one has met is known to the next.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import files, manifests

DONE = "done.json"
OUTPUT = "output"


@dataclass(frozen=True)
class Written:
    """What a done.json says that others rely on."""

    fingerprint: str
    manifest: manifests.Manifest  # of output/
    beside: manifests.Manifest  # of what else lies in the step's folder, as its metrics
    made_from: Mapping[str, str]  # fingerprint of a step -> digest of the artifact that this one was made from
    time_ns: int  # when it was written, after all the files

    @functools.cached_property
    def digest(self) -> str:
        """What stands for all bits of the artifact."""
        return files.fingerprint({name: entry["sha256"] for name, entry in self.manifest.items()})


def read(folder: Path) -> dict[str, Any] | None:
    """The record of a step's folder, None where there is none.

    Raises OSError or ValueError, with a sentence, for one that says nothing.
    """
    path = folder / DONE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{DONE} is {'no JSON' if text.strip() else 'empty'}") from error
    if not isinstance(record, dict) or not manifests.is_manifest(record.get("files")):
        raise ValueError(f"{DONE} does not list the files that were written")
    return record


def written(folder: Path) -> Written | None:
    """What a step's done.json says; None and raises as `read` does."""
    try:
        status = (folder / DONE).stat()
    except FileNotFoundError:
        return _written(folder, 0, 0, 0)
    return _written(folder, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def made_as(folder: Path) -> tuple[str, str]:
    """The recipe and the name under which a finished step was made, empty where nothing says so."""
    try:
        record = read(folder) or {}
    except (OSError, ValueError):
        record = {}
    return str(record.get("recipe", "")), str(record.get("step", ""))


def damage(folder: Path, fingerprint: str | None) -> tuple[str, ...] | None:
    """What a look finds: a sentence for each damaged file of a finished step, None where it is not finished."""
    return _damage(folder, fingerprint, None, None)


def all_damage(
    folder: Path, hash_of: manifests.HashOf, pool: ThreadPoolExecutor, fingerprint: str | None = None
) -> list[str]:
    """As `damage`, with the content of every file, and a sentence for each file that the step has not written."""
    sentences = _damage(folder, fingerprint, hash_of, pool)
    record = None if sentences else written(folder)
    return [*(sentences or ()), *(manifests.added(folder / OUTPUT, record.manifest) if record else ())]


def damage_beside(folder: Path, hash_of: manifests.HashOf, pool: ThreadPoolExecutor) -> list[str]:
    """A sentence for each damaged file that a finished step has left beside its artifact."""
    record = written(folder)
    return manifests.damage(folder, record.beside, hash_of, pool) if record else []


@functools.lru_cache(maxsize=4096)
def _written(folder: Path, *status: int) -> Written | None:
    """Reads a done.json once for each state of the file."""
    record = read(folder)
    if record is None:
        return None
    beside = record.get("beside")
    made_from, fingerprints = (_mapping(record.get(key)) for key in ("made_from", "inputs"))
    return Written(
        fingerprint=str(record.get("fingerprint")),
        manifest=record["files"],
        beside=beside if manifests.is_manifest(beside) else {},
        made_from={fingerprints.get(name, name): digest for name, digest in made_from.items()},
        time_ns=status[1],
    )


def _mapping(value: Any) -> dict[str, str]:
    return value if isinstance(value, dict) else {}


def _damage(
    folder: Path, fingerprint: str | None, hash_of: manifests.HashOf | None, pool: ThreadPoolExecutor | None
) -> tuple[str, ...] | None:
    try:
        record = written(folder)
    except ValueError as error:
        return (str(error),)
    except OSError as error:
        return (f"{DONE} cannot be read: {error.strerror}",)
    if record is None:
        return ("its folder is a link to nothing",) if folder.is_symlink() and not folder.exists() else None
    if fingerprint not in (None, record.fingerprint):
        return (f"{DONE} is that of another step, {record.fingerprint}",)

    def where_it_may_differ(path: str, status: os.stat_result) -> str | None:
        known = files.known_hash(path, status)
        return files.read_hash(path) if known is None and status.st_mtime_ns > record.time_ns else known

    return tuple(manifests.damage(folder / OUTPUT, record.manifest, hash_of or where_it_may_differ, pool))
