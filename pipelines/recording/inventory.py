"""All steps of an output directory, and which recipes reach them."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import finished
from trimtab.pipelines.planning.references import strings
from trimtab.pipelines.planning.store import Store, is_view
from trimtab.pipelines.recording import locks, views
from trimtab.pipelines.recording.artifacts import CHECKPOINTS


@dataclass(frozen=True)
class Entry:
    """A step's folder: its done.json, None of one that is not finished, and `recipe/name` of those that reach it."""

    folder: Path
    record: Mapping[str, Any] | None
    reached: tuple[str, ...]

    @property
    def name(self) -> str:
        """Where it lies in the output directory."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def holder(self) -> str | None:
        """Who makes it at the moment."""
        return locks.holder(locks.of_folder(self.folder))

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints, which need not be there."""
        return self.folder / CHECKPOINTS


def entries(root: Path) -> list[Entry]:
    """Every step of an output directory."""
    folders = Store(root).folders()
    records = {folder: _record(folder) for folder in folders}
    reached = _reached(root, records)
    return [Entry(folder, record, tuple(reached[folder])) for folder, record in records.items()]


def running(root: Path) -> dict[str, str]:
    """The recipes that a launcher works on, each with who that is."""
    holders = {file.parent.name: locks.holder(file) for file in sorted(root.glob("*/.lock"))}
    return {name: holder for name, holder in holders.items() if holder}


def _reached(root: Path, records: Mapping[Path, Mapping[str, Any] | None]) -> defaultdict[Path, list[str]]:
    """For the folder of each step, the names under which recipes reach it, by a plan or by the options of a step."""
    reached: defaultdict[Path, list[str]] = defaultdict(list)
    for name, folder in _planned(root):
        if name not in reached[folder]:
            reached[folder].append(name)
    places = {folder.resolve(): folder for folder in records}
    open_folders = list(reached)
    while open_folders:
        reader = open_folders.pop()
        for folder in _read_by(records.get(reader), places):
            if not reached[folder]:
                reached[folder].append(f"options of {reached[reader][0]}")
                open_folders.append(folder)
    return reached


def _planned(root: Path) -> Iterator[tuple[str, Path]]:
    """`recipe/name` and folder of all steps in the plans of recipes; of an older recipe's folder, what it links."""
    for run in sorted(path for path in root.iterdir() if path.is_dir()):
        plans = views.plans(run)
        for plan in plans:
            for name, place in plan["steps"].items():
                yield f"{run.name}/{name}", root / place
        for link in () if plans else filter(is_view, sorted(run.iterdir())):
            yield f"{run.name}/{link.name}", Path(os.path.normpath(run / os.readlink(link)))


def _read_by(record: Mapping[str, Any] | None, places: Mapping[Path, Path]) -> Iterator[Path]:
    """The folders of steps in which paths among a step's options lie."""
    for text in strings((record or {}).get("options")):
        with contextlib.suppress(OSError, ValueError):
            path = Path(text.partition("#")[0]).resolve() if "/" in text else Path()
            yield from (places[above] for above in (path, *path.parents) if above in places)


def _record(folder: Path) -> Mapping[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        return finished.read(folder)
    return None
