"""Where steps live: once for all recipes of an output directory, in a folder that only their identity names.

    runs/steps/<kind>-<key>/       a step
    runs/<recipe>/<step name>      a link to it

A key is a step's fingerprint and eight more hex digits. Eight alone would be the same for two of 10,000 steps with a
probability of 1 %; sixteen with one of 3e-12.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import files, finished

STEPS = "steps"  # no recipe can be called so
SCORED, MERGED = "scored", "_merged"  # beside the steps: scores and merged adapters; no stage can be called so
KEYED = re.compile(r".+-[0-9a-f]{16}")
OLDER = re.compile(r".+-([0-9a-f]{8})")


def key(identity: Any, keys: Iterable[str]) -> str:
    """The key of a step with this identity that is made from the steps with these keys."""
    longer = files.fingerprint({"identity": identity, "keys": sorted(keys)})
    return files.fingerprint(identity) + longer


def is_view(path: Path) -> bool:
    """Whether it is a link that shows a step under its name in a recipe."""
    if not path.is_symlink():
        return False
    there = Path(os.readlink(path))
    return len(there.parts) == 1 or (len(there.parts) == 3 and there.parts[0] == "..")


@dataclass(frozen=True)
class Store:
    """The steps of an output directory."""

    root: Path

    def folder(self, kind: str, key: str) -> Path:
        """Where a step is, or will be: in the older folder of a recipe where that has it and the store has not."""
        folder = self.root / STEPS / f"{kind}-{key}"
        return folder if os.path.lexists(folder) else self.older.get(key[:8], folder)

    def folders(self) -> list[Path]:
        """Those of all steps, in the store and in older folders."""
        inside = _inside(self.root / STEPS)
        return [*(folder for folder in inside if KEYED.fullmatch(folder.name)), *self._older()]

    @functools.cached_property
    def older(self) -> dict[str, Path]:
        """Folders `<recipe>/<step name>-<fingerprint>` by their fingerprints, finished ones before others."""
        folders = list(self._older())
        folders.sort(key=lambda folder: os.path.lexists(folder / finished.DONE))
        return {folder.name[-8:]: folder for folder in folders}

    def _older(self) -> Iterator[Path]:
        recipes = (folder for folder in _inside(self.root) if folder.name != STEPS)
        for recipe in recipes:
            for folder in _inside(recipe):
                if OLDER.fullmatch(folder.name) and not is_view(folder):
                    yield folder


def _inside(folder: Path) -> list[Path]:
    """The folders in a folder, and links to some, in order; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_symlink() or entry.is_dir())
    except OSError:
        return []
    return [folder / name for name in names]
