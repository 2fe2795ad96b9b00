"""Files by their content: hashes that stand for them in an identity, and writes that are whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

LARGE = 1 << 24  # bytes, above which a file's hash is remembered


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


def cache_folder(name: str) -> Path:
    """A folder of the user's cache, which may be deleted at any time; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "trimtab" / name


def write_atomically(path: Path, text: str) -> None:
    """Writes under a temporary name, syncs and renames: a reader sees the old file or the whole new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(name, 0o644)
    os.replace(name, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Makes what a file holds, or the names in a directory, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file_hash(path: Path) -> str:
    status = path.stat()
    if status.st_size < LARGE:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    key = fingerprint([str(path.resolve()), status.st_size, status.st_mtime_ns])
    memo = cache_folder("sha256") / key
    if memo.exists():
        return memo.read_text()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a read-only home costs time, not the run
        memo.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memo, digest)
    return digest
