"""What takes seconds of imports to find out, remembered in the user's cache while the libraries stay the same.

A memo stands for all that an answer depends on, with the versions of the libraries that are asked and the file that
has the question. Without a folder to write in, they are asked every time.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import files

COLD = "the libraries are asked what is not remembered of them yet, which takes seconds, once"
LIBRARIES = ("trl", "transformers", "accelerate", "peft", "torch")


_listeners: list[Callable[[str], None]] = []


def announce(tell: Callable[[str], None]) -> None:
    """Has `tell` called with a sentence before the libraries are asked for the first time, if they have to be."""
    _listeners[:] = [tell]


def recalled(name: str, subject: Any, ask: Callable[[], Any]) -> Any:
    """The answer about a JSON-like `subject` that is remembered under `name`, else what `ask` returns, which is kept.

    An answer is JSON-like too. What `ask` raises is not remembered.
    """
    versions = {library: _version(library) for library in LIBRARIES}
    text = json.dumps([subject, versions, _source(inspect.getsourcefile(ask))], sort_keys=True, default=repr)
    memo = files.cache_folder(name) / hashlib.sha256(text.encode()).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        return json.loads(memo.read_text())
    while _listeners:
        _listeners.pop()(COLD)
    answer = ask()
    with contextlib.suppress(OSError):  # a read-only home costs time, not the plan
        memo.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(memo, json.dumps(answer))
    return answer


@cache
def _source(path: str | None) -> str:
    return "" if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()


@cache
def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
