"""How the tables of benchmarks write the mean of some values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401

from trimtab.pipelines.algorithms.statistics import mean_stderr


def cell(values: Sequence[float] | Any, digits: int = 3, *, sign: str = "") -> str:
    """The mean of a list or an array, with its standard error where there are several; `sign` may be "+"."""
    mean, stderr = mean_stderr(values)
    return f"{mean:{sign}.{digits}f}" + (f" +- {stderr:.{digits}f}" if len(values) > 1 else "")
