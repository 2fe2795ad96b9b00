"""Pictures of the curves that a benchmark has stored: one SVG with a panel for each `panel` of a table."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401

from trimtab.pipelines.algorithms.statistics import mean_stderr

Rows = Sequence[Mapping[str, Any]]


def is_of_curves(rows: Rows) -> bool:
    """Whether a table is one of curves: `panel`, `x`, `y`, `curve` and the numbers `at` and `values` (`errors`)."""
    return "curve" in rows[0]


def curve(
    panel: str, x: str, y: str, name: str, at: Sequence[float], runs: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """A row of curves: the mean over runs, as far as all of them go, with its standard errors."""
    points = [mean_stderr(values) for values in zip(*runs, strict=False)]
    means, errors = zip(*points, strict=True)
    row = {"panel": panel, "x": x, "y": y, "curve": name, "at": list(at)[: len(points)], "values": list(means)}
    return {**row, "errors": list(errors)} if len(runs) > 1 else row


def is_current(rows: Rows, path: Path) -> bool:
    """Whether the picture at `path` is of these curves."""
    return path.exists() and _digest(rows) in path.read_text()


def draw(rows: Rows, path: Path) -> None:
    """Writes the picture, with the hash of its curves in it."""
    import matplotlib
    from matplotlib.figure import Figure

    told: list[str] = []  # the names in the legend of the panel before
    panels = list(dict.fromkeys(row["panel"] for row in rows))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name, "font.size": 8}):
        figure = Figure(figsize=(3.5 * len(panels), 2.9), layout="constrained")
        for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            curves = [row for row in rows if row["panel"] == panel]
            for row in curves:
                (line,) = axis.plot(row["at"], row["values"], lw=1.2, label=row["curve"])
                if "errors" in row:
                    pairs = list(zip(row["values"], row["errors"], strict=True))
                    low, high = [value - error for value, error in pairs], [value + error for value, error in pairs]
                    axis.fill_between(row["at"], low, high, color=line.get_color(), alpha=0.15, lw=0)
            axis.set_title(panel, fontsize=8)
            axis.set(xlabel=curves[0]["x"], ylabel=curves[0]["y"])
            axis.set_xscale("log" if 0 < min(curves[0]["at"]) < 1 else "linear")
            if all(isinstance(place, int) for row in curves for place in row["at"]):
                axis.xaxis.get_major_locator().set_params(integer=True)
            axis.spines[["top", "right"]].set_visible(False)
            names = [row["curve"] for row in curves]
            if names != told:
                axis.legend(frameon=False, fontsize=7)
            told = names
        figure.savefig(path, metadata={"Date": None, "Description": _digest(rows)})


def _digest(rows: Rows) -> str:
    return "curves " + hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
