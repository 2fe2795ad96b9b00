"""Texts that a recipe writes out, or names by the place where a stage leaves one."""

from __future__ import annotations

from pathlib import Path

FILE = "text.txt"  # in the artifact of a stage that leaves a text


def is_place(text: str) -> bool:
    """Whether a text is the name of a file or folder: one word with a slash in it, and nothing to fill in."""
    return "/" in text and "{{" not in text and len(text.split()) == 1


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
