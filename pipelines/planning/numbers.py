"""Numbers that one stage leaves for stages below it: `$stage.name` in a recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning.errors import RecipeError, suggest


def threshold(value: Any, path: Sequence[str]) -> Any:
    """The number that `FILE#NAME` stands for, which is what `$stage.name` becomes; NaN while it is still to be found.

    Any other value is what it is. Raises RecipeError for a name that is not in the file.
    """
    if not isinstance(value, str) or "#" not in value:
        return value
    file, _, name = value.rpartition("#")
    if not Path(file).parent.exists():
        return math.nan
    if not Path(file).exists():
        raise RecipeError("that stage finds no thresholds", path)
    thresholds = json.loads(Path(file).read_text())
    if name not in thresholds:
        names = ", ".join(thresholds)
        raise RecipeError(f"no threshold {name!r} there{suggest(name, thresholds)} (known: {names})", path)
    return thresholds[name]
