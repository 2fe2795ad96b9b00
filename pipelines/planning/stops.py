"""The note by which one step says that what comes of it is not to be made.

A monitor whose limit is met leaves it in its artifact (`stop`). Every step that comes of that one is not run: the
runner passes the note on, as that step's whole artifact. A stage with `takes_stopped` is where notes end: it is run,
and reads them with `stopped` to decide what is still good.
"""

from __future__ import annotations

import json
from pathlib import Path

from trimtab.pipelines.planning.errors import RecipeError

NOTE = "stopped.json"


def stop(output: Path, reason: str) -> None:
    """Leaves the note in a step's artifact."""
    (output / NOTE).write_text(json.dumps({"reason": reason}) + "\n")


def stopped(output: Path) -> str | None:
    """The reason in the note of an artifact, or None. Raises RecipeError for a note that cannot be read."""
    try:
        return json.loads((output / NOTE).read_text())["reason"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        cure = f"trimtab verify {output.parent} says what is damaged"
        raise RecipeError(f"{output / NOTE} cannot be read ({error or 'no reason'}): {cure}") from error
