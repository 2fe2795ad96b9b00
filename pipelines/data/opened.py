"""Datasets that this process has opened, which are not looked for again as long as their files stay as they are.

Finding the files of a folder's splits takes `datasets` a tenth of a second, and a step reads the data that its
forecast, the audit and the step before it have read. Rows stay on disk, so what is kept here is small.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trl

if TYPE_CHECKING:
    from datasets import Dataset

KEPT = 64  # datasets
MOST = 1000  # files of a name, beyond which looking at all of them is no quicker
_opened: OrderedDict[tuple, Dataset] = OrderedDict()


def rows(entry: Any, names: Sequence[str]) -> Dataset:
    """The rows of a dataset entry, which reads `names`, as trl gives them."""
    state = _state(names)
    key = (repr(sorted(asdict(entry).items(), key=str)), state)
    if state is None or key not in _opened:
        opened = trl.get_dataset(trl.DatasetMixtureConfig(datasets=[entry]))["train"]
        if state is None:
            return opened
        _opened[key] = opened
    _opened.move_to_end(key)
    while len(_opened) > KEPT:
        _opened.popitem(last=False)
    return _opened[key]


def _state(names: Sequence[str]) -> tuple | None:
    """What changes with local files; None where one of the names is of something else, or they are too many."""
    states = []
    for name in names:
        files = list(islice(_files(Path(name).expanduser()), MOST + 1))
        if not files or len(files) > MOST:
            return None
        statuses = ((str(path), path.stat()) for path in files)
        states += [(name, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns) for name, at in statuses]
    return tuple(states)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, _, files in os.walk(path):
        yield from (Path(folder, file) for file in files)
