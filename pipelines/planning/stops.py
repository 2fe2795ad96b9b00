"""The note by which one step says that what comes of it is not to be made.

A monitor whose limit is met leaves it in its artifact (`stop`). Every step that comes of that one is not run: the
runner passes the note on, as that step's whole artifact. A stage with `takes_stopped` is where notes end: it is run,
and reads them with `stopped` to decide what is still good.
"""

from __future__ import annotations

import json
from pathlib import Path

NOTE = "stopped.json"


def stop(output: Path, reason: str) -> None:
    """Leaves the note in a step's artifact."""
    (output / NOTE).write_text(json.dumps({"reason": reason}) + "\n")


def stopped(output: Path) -> str | None:
    """The reason in the note of an artifact, or None."""
    try:
        return json.loads((output / NOTE).read_text())["reason"]
    except FileNotFoundError:
        return None
