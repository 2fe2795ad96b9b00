"""The plane of a reward over the KL that it cost, a point for each policy, as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from trimtab.pipelines.reporting.numerals import finite, number
from trimtab.pipelines.reporting.records import mapping

WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT, TOP = 430, 230, 50, 34, 90, 14


def draw(policies: Mapping[str, Any], reward: str) -> str:
    """The drawing, "" where fewer than two policies have both numbers. Bars are one standard error."""
    points = []
    for name, policy in policies.items():
        mean, kl = mapping(policy["rewards"].get(reward)), mapping(policy.get("kl"))
        if finite(mean.get("mean")) and finite(kl.get("mean")):
            points.append((name, kl["mean"], mean["mean"], mean.get("stderr") or 0.0))
    if len(points) < 2:
        return ""
    across = _scale([0.0, *(kl for _, kl, _, _ in points)], LEFT, WIDTH - RIGHT)
    ends = [value for _, _, mean, stderr in points for value in (mean - stderr, mean + stderr)]
    up = _scale(ends, HEIGHT - BOTTOM, TOP)
    said = f"{escape(reward)} over KL"
    return "".join([
        f'<svg class="plane" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">',
        f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>',
        *(_point(name, across(kl), *map(up, (y, y - bar, y + bar))) for name, kl, y, bar in points),
        *(f'<text x="{LEFT - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{number(round(value, 3))}</text>'
          for value in (min(ends), max(ends))),
        f'<text x="{LEFT}" y="{HEIGHT - BOTTOM + 14}">0</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">KL, nats per completion</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - BOTTOM + 14}" text-anchor="end">'
        f"{number(round(max(kl for _, kl, _, _ in points), 2))}</text></svg>",
    ])  # fmt: skip


def _point(name: str, x: float, y: float, low: float, high: float) -> str:
    return (f'<path class="error" d="M{x:.1f} {low:.1f}V{high:.1f}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
            f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{escape(name)}</text>')  # fmt: skip


def _scale(values: list[float], start: float, end: float) -> Any:
    """A function from values to places between `start` and `end`."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)
