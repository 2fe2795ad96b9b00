"""What the audit has found in some rows, and where it is kept: by the content of the files and by who looked."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.pipelines.planning.files import cache_folder, content_hash, fingerprint

Rows = NDArray[np.int64]
_seen: dict[str, Facts] = {}


@dataclass
class Facts:
    """Rows by their class, and numbers of every row or answer.

    `rows` holds the row numbers of each class, in order and each once, and `values` what is said of the first of them.
    `arrays` holds what later questions are answered from, such as the length of every answer in tokens, and `is_chat`
    says whether there are messages in the rows.
    """

    count: int = 0
    columns: list[str] = field(default_factory=list)
    is_chat: bool = False
    rows: dict[str, Rows] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def add(self, word: str, rows: Iterable[int], value: str = "") -> None:
        """Adds rows to a class; of the first one that it has, `value` says what is wrong."""
        rows = np.unique(np.asarray(rows, dtype=np.int64))
        if len(rows) == 0:
            return
        before = self.rows.get(word)
        if before is None or rows[0] < before[0]:
            self.values[word] = value
        self.rows[word] = rows if before is None else np.union1d(before, rows)


def kept(key: Any, find: Callable[[], Facts]) -> Facts:
    """What `find` finds, or what it found when it was asked by the same key before, also by another process."""
    name = fingerprint([key, _sources()]) + fingerprint([_sources(), key])
    if name in _seen:
        return _seen[name]
    path = cache_folder("audit") / f"{name}.npz"
    facts = _read(path)
    if facts is None:
        facts = find()
        with contextlib.suppress(OSError):  # a read-only home costs time, not the run
            _write(path, facts)
    _seen[name] = facts
    return facts


def _sources() -> list[str]:
    """The audit itself: when it learns to see more, it looks again."""
    return [content_hash(path) for path in sorted(Path(__file__).parent.glob("*.py"))]


def _read(path: Path) -> Facts | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            said = json.loads(str(stored["said"]))
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, EOFError):
        return None
    return Facts(
        said["count"],
        said["columns"],
        said["is_chat"],
        {name.removeprefix("rows."): rows for name, rows in arrays.items() if name.startswith("rows.")},
        said["values"],
        {name.removeprefix("of."): array for name, array in arrays.items() if name.startswith("of.")},
    )


def _write(path: Path, facts: Facts) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"count": facts.count, "columns": facts.columns, "is_chat": facts.is_chat, "values": facts.values}
    said = json.dumps(about)
    arrays: dict[str, Any] = {f"rows.{word}": rows for word, rows in facts.rows.items()}
    arrays |= {f"of.{name}": array for name, array in facts.arrays.items()}
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    with os.fdopen(handle, "wb") as file:
        np.savez(file, said=np.array(said), **arrays)
    os.replace(name, path)
