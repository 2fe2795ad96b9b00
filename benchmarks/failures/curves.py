"""The curves of a picture: means over seeds, thinned to what can be seen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

SEEDS = 10
SHOWN = 120  # points of a curve at most
Rows = list[dict[str, Any]]


def curve(panel: str, x: str, y: str, name: str, values: Iterable[float] | Any, start: int = 0) -> dict[str, Any]:
    """A row of a picture's table: the mean curve, thinned to what can be seen. `x` counts from `start`."""
    values = np.asarray(values, dtype=float)
    places = np.unique(np.linspace(0, len(values) - 1, min(SHOWN, len(values))).round().astype(int))
    return {
        "panel": panel,
        "x": x,
        "y": y,
        "curve": name,
        "at": (places + start).tolist(),
        "values": values[places].tolist(),
    }
