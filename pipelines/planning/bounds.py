"""What a number of a step is held against: `require: {eval/accuracy: ">= 0.65", eval/loss: "< 1"}`.

A number alone is the least that will do: `0.65` is `">= 0.65"`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from typing import Annotated, Any

from trimtab.pipelines.planning.errors import RecipeError

KEY = "require"  # of any stage, and the kind of the step that it becomes
SIGNS = {
    ">=": (operator.ge, "at least"),
    "<=": (operator.le, "at most"),
    ">": (operator.gt, "more than"),
    "<": (operator.lt, "less than"),
}
FORM = re.compile(r"^\s*(>=|<=|>|<)\s*(\S+)\s*$")


def bound(value: Any, path: Sequence[str] = ()) -> str:
    """The bound as its sign and its number, which is finite. Raises RecipeError for what is neither."""
    written = FORM.match(value) if isinstance(value, str) else None
    sign, said = written.groups() if written else (">=", value)
    try:
        number = math.nan if isinstance(said, bool) else float(said)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RecipeError(f'expected a number, or one behind >=, >, <= or < as in ">= 0.65", got {value!r}', path)
    return f"{sign} {str(number).removesuffix('.0')}"  # every digit of it


def missed(value: float, limit: str) -> str | None:
    """In words what a number would have to be, or None where it is that: "at least 0.65"."""
    sign, number = limit.split()
    holds, words = SIGNS[sign]
    return None if holds(value, float(number)) else f"{words} {number}"


Bound = Annotated[float | str, bound]
