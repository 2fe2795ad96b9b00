"""Files by their content: hashes that stand for them in an identity, and writes that are whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

LARGE = 1 << 24  # bytes, above which the hash of a file that a recipe names is remembered
RECENT = 2 * 10**9  # ns in which a file may change again and keep its times: no hash of it is remembered
SHA256 = re.compile(r"[0-9a-f]{64}")
State = tuple[str, int, int, int, int]  # of a file: path, inode, bytes, times
_remembered: dict[State, str | None] = {}  # what the user's cache says, or what it would if it could


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

    Those of large files are remembered, so that planning does not read a model's weights each time.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return _content(path)
    files = (p for p in sorted(path.rglob("*")) if p.is_file())
    visible = [p for p in files if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    return fingerprint({str(p.relative_to(path)): _content(p) for p in visible})


def file_hash(path: str | Path, status: os.stat_result | None = None) -> str:
    """SHA-256 of a file, read only where its inode, its size or one of its times is not that of the last time."""
    return known_hash(str(path), status or os.stat(path)) or read_hash(path)


def known_hash(path: str, status: os.stat_result) -> str | None:
    """SHA-256 of a file with this status where it was read before, else None."""
    state = _state(path, status)
    if state not in _remembered:
        try:
            text = _memo(state).read_text()
        except (OSError, ValueError):
            text = ""
        _remembered[state] = text if SHA256.fullmatch(text) else None
    return _remembered[state]


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_hash(path: str | Path) -> str:
    """SHA-256 of a file, read now, and remembered for the next time."""
    status = os.stat(path)
    digest = sha256(path)
    state = _state(str(path), status)
    is_recent = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < RECENT
    if is_recent or state != _state(str(path), os.stat(path)):
        return digest
    _remembered[state] = digest
    with contextlib.suppress(OSError):  # a read-only home costs time, not the run
        memo = _memo(state)
        memo.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memo, digest)
    return digest


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


def _content(path: Path) -> str:
    return sha256(path) if path.stat().st_size < LARGE else file_hash(path)


def _state(path: str, status: os.stat_result) -> State:
    """What a hash holds for; ctime is among it since mtime can be set back."""
    return path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _memo(state: State) -> Path:
    """The file of the user's cache that has a hash."""
    path, *numbers = state
    words = "\0".join(map(str, (os.path.abspath(path), *numbers)))
    return cache_folder("sha256") / hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()
