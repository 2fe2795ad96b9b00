"""The plane of a reward over the KL that it cost, a point for each policy, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from trimtab.pipelines.reporting.numerals import finite, number
from trimtab.pipelines.reporting.records import mapping

WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT, TOP = 430, 230, 50, 34, 90, 14
LINE, LETTER = 11, 6  # the height of a label, and the width of a letter in it


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
    farthest = max(kl for _, kl, _, _ in points)
    labels = _apart([(across(kl), up(y), len(name)) for name, kl, y, _ in points])
    return "".join([
        f'<svg class="plane" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">',
        f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>',
        *(_point(name, label, across(kl), *map(up, (y, y - bar, y + bar)))
          for (name, kl, y, bar), label in zip(points, labels, strict=True)),
        *(f'<text x="{LEFT - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{number(round(value, 3))}</text>'
          for value in (min(ends), max(ends))),
        f'<text x="{across(0.0):.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">0</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">KL, nats per completion</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - BOTTOM + 14}" text-anchor="end">'
        f"{number(float(f'{farthest:.2g}')) if farthest > 0 else ''}</text></svg>",
    ])  # fmt: skip


def _apart(places: Sequence[tuple[float, float, int]]) -> list[float]:
    """The height of the label of each point (x, y, letters): its own, or below a label that would lie over it."""
    heights: dict[int, float] = {}
    for place, (x, y, letters) in sorted(enumerate(places), key=lambda numbered: numbered[1][1]):
        height = y
        for other in sorted(heights, key=heights.__getitem__):
            is_beside = -LETTER * letters < x - places[other][0] < LETTER * places[other][2]
            if is_beside and height - heights[other] < LINE:
                height = heights[other] + LINE
        heights[place] = height
    return [heights[place] for place in range(len(places))]


def _point(name: str, label: float, x: float, y: float, low: float, high: float) -> str:
    return (f'<path class="error" d="M{x:.1f} {low:.1f}V{high:.1f}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
            f'<text x="{x + 8:.1f}" y="{label + 4:.1f}">{escape(name)}</text>')  # fmt: skip


def _scale(values: list[float], start: float, end: float) -> Any:
    """A function from values to places between `start` and `end`."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)
