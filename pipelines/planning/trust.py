"""What the user of this machine has consented to run: code by its content, folders for good.

    trimtab run mine.yaml --trust            # the content of the recipe's files, once: trust.json
    trust: [~/work]                          # ~/.config/trimtab/config.yaml: whatever lies in these folders
    TRIMTAB_TRUST=/app/rewards:/app/stages   # the same, for a container

A launcher hands its workers the marks of what it has found trusted: they ask nobody, and run nothing else.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.files import content_hash, write_atomically
from trimtab.pipelines.planning.yaml_limits import Limited, read

HANDED = "TRIMTAB_CONSENT"  # from a launcher to its workers: marks, with commas between
FOLDERS = "TRIMTAB_TRUST"


class Withheld(RecipeError):
    """Raised for code that would have to be imported, and that nobody has consented to."""


def config_folder() -> Path:
    """The folder of the user's own configuration; it need not exist."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "trimtab"


def mark(file: Path) -> str:
    """What stands for a file's content."""
    return content_hash(file)


def is_given(mark: str, file: Path | None = None) -> bool:
    """Whether there is consent to what has the mark: a file's content, or the name of code on the Hub."""
    handed = os.environ.get(HANDED)
    if handed is not None:
        return mark in handed.split(",")
    return mark in _recorded() or any(_covers(entry, mark, file) for entry in _entries())


def are_given(files: Iterable[Path]) -> bool:
    """Whether there is consent to every file."""
    return all(is_given(mark(file), file) for file in files if file.is_file())


def give(marks: dict[str, str]) -> None:
    """Records consent to marks, each with what it is of, in the user's configuration. Raises RecipeError."""
    file = config_folder() / "trust.json"
    said = {name: {"what": what, "when": time.strftime("%Y-%m-%d")} for name, what in marks.items()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(_recorded() | said, indent=1))
    except OSError as error:
        cure = f"`export {FOLDERS}=FOLDER` trusts a folder without a file"
        raise RecipeError(f"consent cannot be recorded in {file}: {error.strerror or error}: {cure}") from None


def _covers(entry: str, mark: str, file: Path | None) -> bool:
    """Whether an entry of the configuration is the mark, or a folder with the file."""
    if file is None:
        return entry == mark
    folder = Path(entry).expanduser()
    return folder.is_absolute() and file.resolve().is_relative_to(folder.resolve())


def _recorded() -> dict[str, Any]:
    """What trust.json says, by mark; nothing where it cannot be read."""
    try:
        recorded = json.loads((config_folder() / "trust.json").read_text())
    except (OSError, ValueError):
        return {}
    return recorded if isinstance(recorded, dict) else {}


def _entries() -> list[str]:
    """Folders, and names of code on the Hub, that are trusted for good. Raises RecipeError."""
    entries = [entry for entry in os.environ.get(FOLDERS, "").split(os.pathsep) if entry]
    file = config_folder() / "config.yaml"
    if not file.is_file():
        return entries
    try:
        settings = yaml.load(read(file), Limited) or {}
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise RecipeError(f"{file} is not readable: {error}") from None
    written = settings.get("trust") if isinstance(settings, dict) else None
    if isinstance(written, str) or not isinstance(written or [], list):
        raise RecipeError(f"{file}: trust: expected a list of folders, as in trust: [~/work]")
    return entries + [str(entry) for entry in written or []]
