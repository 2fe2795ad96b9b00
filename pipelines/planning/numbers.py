"""Numbers that one stage leaves for stages below it: `$stage.name` in a recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import finished
from trimtab.pipelines.planning.errors import RecipeError, suggest


def threshold(value: Any, path: Sequence[str]) -> Any:
    """The number that `FILE#NAME` stands for, which is what `$stage.name` becomes.

    NaN while it is still to be found, or to be found again since its file is damaged. Any other value is what it is.
    Raises RecipeError for a name that is not in the file.
    """
    if not isinstance(value, str) or "#" not in value:
        return value
    file, _, name = value.rpartition("#")
    output = Path(file).parent
    if not output.exists() or finished.damage(output.parent, None):
        return math.nan
    if not Path(file).exists():
        raise RecipeError("that stage finds no thresholds", path)
    try:
        thresholds = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise RecipeError(f"{file} cannot be read: {error}", path) from error
    if not isinstance(thresholds, dict):
        raise RecipeError(f"{file} holds no thresholds", path)
    if name not in thresholds:
        names = ", ".join(thresholds)
        raise RecipeError(f"no threshold {name!r} there{suggest(name, thresholds)} (known: {names})", path)
    return thresholds[name]
