"""A manifest: the files that were written into a folder, with sizes and hashes, and what became of them since."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeGuard

from trimtab.pipelines.planning.files import sha256

Manifest = Mapping[str, Mapping[str, Any]]  # relative name -> {"sha256": ..., "bytes": ...}
HashOf = Callable[[str, os.stat_result], str | None]  # of a file with this status, or None: its size must do
THREADS = min(8, os.cpu_count() or 1)  # a thread that hashes leaves the interpreter to the others


def write_down(folder: Path, *inside: str) -> dict[str, dict[str, Any]]:
    """The manifest of a folder's files, or of those `inside` some of its entries. They are on the disk then."""
    names = [name for name in files_in(folder) if not inside or Path(name).parts[0] in inside]
    with ThreadPoolExecutor(THREADS) as pool:
        entries = pool.map(lambda name: _entry(folder / name), names)
        return dict(zip(names, entries, strict=True))


def files_in(folder: Path) -> list[str]:
    """The relative names of everything in a folder and below it that is no folder, in order."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(str(path.relative_to(folder)) for path in paths)


def is_manifest(value: Any) -> TypeGuard[Manifest]:
    """Whether a value that was read from a file is a manifest."""
    return isinstance(value, dict) and all(map(_is_entry, value.values()))


def damage(folder: Path, manifest: Manifest, hash_of: HashOf, pool: ThreadPoolExecutor | None = None) -> list[str]:
    """A sentence for each file that is not as it was written, or one for the whole folder where that is gone.

    `hash_of` decides which files are read; a pool reads several at a time.
    """
    if manifest and not folder.is_dir():
        return [f"{folder.name} {_instead(folder)}"]

    def change(name: str) -> str | None:
        return _change(f"{folder}/{name}", manifest[name], hash_of)

    changes = zip(manifest, (pool.map if pool else map)(change, manifest), strict=True)
    return [f"{folder.name}/{name} {what}" for name, what in changes if what]


def added(folder: Path, manifest: Manifest) -> list[str]:
    """A sentence for each file in a folder that the manifest does not have; hidden ones are left out."""
    names = [name for name in files_in(folder) if name not in manifest]
    visible = [name for name in names if not any(part.startswith(".") for part in Path(name).parts)]
    return [f"{folder.name}/{name} was not written by the step" for name in visible]


def _entry(path: Path) -> dict[str, Any]:
    digest = sha256(path)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return {"sha256": digest, "bytes": path.stat().st_size}


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("sha256"), str) and isinstance(value.get("bytes"), int)


def _change(path: str, entry: Mapping[str, Any], hash_of: HashOf) -> str | None:
    """What is to be said of a file, None where it is as it was written."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return "is no file"
        if status.st_size != entry["bytes"]:
            return f"has {status.st_size} bytes, {entry['bytes']} were written"
        return "has other content than was written" if hash_of(path, status) not in (None, entry["sha256"]) else None
    except (FileNotFoundError, NotADirectoryError):
        return _instead(Path(path))
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _instead(path: Path) -> str:
    """What stands where a file or folder should be."""
    if path.is_symlink() and not path.exists():
        return "is a link to nothing"
    return "is no folder" if path.exists() else "is missing"
