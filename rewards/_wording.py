"""Texts that a recipe writes out, or names by the place where a stage leaves one."""

from __future__ import annotations

import re
from pathlib import Path

FILE = "text.txt"  # in the artifact of a stage that leaves a text
LONGEST = 4096  # characters of a path


def is_place(text: str) -> bool:
    """Whether a text names a file or folder: it is there, or it is a word with a slash in it, as paths are."""
    looks_like_one = "/" in text and re.fullmatch(r"[\w./~+-]+", text) is not None
    return looks_like_one or ("/" in text and len(text) < LONGEST and "\n" not in text and Path(text).exists())


def wording(text: str) -> str:
    """The text itself, or what stands in the file, or in the stage's artifact, that it names.

    Raises ValueError for a place where no text is.
    """
    if not is_place(text):
        return text
    path = Path(text).expanduser()
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"no text at {text}: expected a file, or the artifact of a stage that leaves {FILE}")
    return file.read_text(encoding="utf-8")
