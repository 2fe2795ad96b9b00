"""Numbers as the page prints them: few digits, a true minus, and a dash where there is no number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

DASH = "–"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def finite(value: Any) -> TypeGuard[float]:
    """Whether the value is a number that can be shown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, signed: bool = False) -> str:
    """Four digits of a number; a string stays what it is."""
    if not finite(value):
        return value if isinstance(value, str) else DASH
    if float(value).is_integer() and abs(value) < 1e15:
        digits = f"{value:+,.0f}"
    elif 1e-3 <= abs(value) < 1e5:
        digits = f"{value:+.4g}"
    else:
        digits = f"{value:+.2e}"
    return _with_minus(digits if signed else digits.lstrip("+"))


def with_error(estimate: Any, signed: bool = False) -> str:
    """A mean ± its standard error, both to the error's second digit."""
    mean, stderr = _mean_and_stderr(estimate)
    if not finite(mean):
        return DASH
    sign = "+" if signed else ""
    if not finite(stderr):
        return _with_minus(f"{mean:{sign}z.3f}")
    places = min(4, max(0, 1 - math.floor(math.log10(stderr)))) if stderr > 0 else 3
    return f"{_with_minus(f'{mean:{sign}z.{places}f}')} ± {stderr:.{places}f}"


def in_errors(difference: Any) -> str:
    """A difference in units of its standard error."""
    mean, stderr = _mean_and_stderr(difference)
    if finite(mean) and finite(stderr) and stderr > 0:
        return _with_minus(f"{mean / stderr:+.1f} s.e.")
    return DASH


def percent(share: Any, unit: str = "%") -> str:
    """A share in [0, 1] in hundredths."""
    return f"{100 * share:.1f}{unit}" if finite(share) else DASH


def duration(seconds: Any) -> str:
    """A time as "1 h 05 min", "3 min 20 s" or "4.2 s"."""
    if not finite(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02} min"


def off(forecast: Any, measured: Any) -> str:
    """How far a forecast is from what was measured, in hundredths of it."""
    if not (finite(forecast) and finite(measured) and measured):
        return DASH
    return _with_minus(f"{100 * (forecast / measured - 1):+z.0f}%")


def size(count: Any) -> str:
    """A number of bytes, as "1.5 GiB"."""
    if not finite(count):
        return DASH
    power = 0
    while power < len(UNITS) - 1 and count >= 1000 * 1024**power:
        power += 1
    return f"{count / 1024**power:.3g} {UNITS[power]}"


def _mean_and_stderr(estimate: Any) -> tuple[Any, Any]:
    return (estimate.get("mean"), estimate.get("stderr")) if isinstance(estimate, Mapping) else (None, None)


def _with_minus(digits: str) -> str:
    return digits.replace("-", "−")
