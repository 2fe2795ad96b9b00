"""Drawings for the report, as inline SVG that follows the page's colours: learning curves and the chain of steps.

Colours are CSS variables of the page (`--ink`, `--muted`, `--rule`, `--c1` to `--c6`), so one drawing serves light,
dark and paper. matplotlib is imported only when a curve is drawn.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from trimtab.pipelines.reporting.numerals import finite, number

SERIES = 6  # colours
NAMED = 2 * SERIES  # curves of a panel that a legend tells apart
GATHERED = 12  # inputs of a step, as the scores of the policies that an evaluation compares
POINTS = 400  # of one curve; longer ones are drawn as means of neighbours
LANE, ROW, MIDDLE, DOT = 14, 30, 15, 4.5  # of the chain's drawing, in pixels
# matplotlib wants real colours: each stands for a variable of the page and is replaced by it in the SVG.
INK, MUTED, RULE = "#010201", "#010202", "#010203"
PALETTE = [f"#0203{n:02x}" for n in range(1, SERIES + 1)]
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {c: f"--c{n}" for n, c in enumerate(PALETTE, 1)}
STYLE = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "text.parse_math": False,  # a metric's name is no formula
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 5),
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
}
BOOKKEEPING = ("*epoch", "*rate", "*grad_norm", "*num_tokens", "*runtime", "*per_second", "*flos", "*step", "*steps")


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that a pattern matches, in the patterns' order, each once."""
    names = list(names)
    matches: dict[str, None] = {}
    for pattern in patterns:
        matches |= dict.fromkeys(name for name in names if name == pattern or fnmatchcase(name, pattern))
    return list(matches)


def curves(
    rows: Sequence[Mapping[str, Any]], panels: Mapping[str, Sequence[str]], over: str = "step"
) -> list[tuple[str, str]]:
    """(title, drawing) of each panel that has something to show.

    `rows` are those of a metrics.jsonl; `panels` maps a title to metric names or patterns (`train/multiplier/*`),
    each match a curve over the trainer's step. Metrics from an evaluation are marked as points, and a constant, such
    as a threshold, is a dashed line. A title with `*` stands for one panel for each name that
    `*` matches in its last pattern. Where no curve has a second point, numbers stand in the place of a drawing. `over`
    is what the axis counts.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if finite(row.get("step")):
            for key, value in row.items():
                if key not in ("step", "time") and finite(value):
                    series.setdefault(key, []).append((row["step"], value))
    wanted = _named(panels, series) if panels else _generic(series).items()
    drawn = []
    for title, patterns in wanted:
        chosen = {key: sorted(series[key]) for key in matching(series, patterns)}
        if chosen:
            draw = panel if any(len(points) > 1 for points in chosen.values()) else _numbers
            drawn.append((title, draw(title, chosen, _labels(list(chosen)), over)))
    return drawn


def _named(panels: Mapping[str, Sequence[str]], series: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str]]]:
    """The panels, with one for each name in the place of one whose title has a `*`."""
    for title, patterns in panels.items():
        if "*" not in title:
            yield title, patterns
            continue
        before, _, after = patterns[-1].partition("*")
        for key in matching(series, patterns[-1:]):
            name = key.removeprefix(before).removesuffix(after)
            yield title.replace("*", name), [pattern.replace("*", name) for pattern in patterns]


def _generic(series: Mapping[str, Any]) -> dict[str, list[str]]:
    """Panels for a kind of which nothing is known: the loss first, then the two metrics that come next."""
    names = [key for key in series if not matching([key], BOOKKEEPING)]
    tails = dict.fromkeys(key.partition("/")[2] or key for key in names)
    order = sorted(tails, key=lambda tail: tail != "loss")[:3]
    return {tail: [key for key in names if (key.partition("/")[2] or key) == tail] for tail in order}


def _numbers(title: str, series: Mapping[str, Sequence[tuple[float, float]]], labels: Sequence[str], over: str) -> str:
    """What stands where curves would have one point each."""
    rows = []
    for label, ((place, value),) in zip(labels, series.values(), strict=True):
        name = html.escape(label if len(series) > 1 else f"{over} {place:g}")
        rows.append(f"<tr><th scope=row>{name}</th><td>{number(value)}</td></tr>")
    return f'<table class="plain">{"".join(rows)}</table>'


def panel(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], labels: Sequence[str], over: str = "step"
) -> str:
    """One drawing of curves, each of them with its label."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    salt = f"{title}{series}"  # no two drawings of a page share an id unless they are the same
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(3.6, 2.1), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        for n, (key, label) in enumerate(zip(series, labels, strict=True)):
            points = _thinned(series[key])
            single = len(points) == 1 or key.startswith("eval")
            constant = len(points) > 1 and len({round(value, 9) for _, value in points}) == 1
            axes.plot(
                *zip(*points, strict=True),
                color=MUTED if constant else PALETTE[n % SERIES],
                linestyle="--" if constant or n >= SERIES else "-",
                linewidth=1 if constant else 1.4,
                marker="o" if single else None,
                markersize=4,
                label=label,
            )
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(over)
        if 1 < len(series) <= NAMED:
            axes.legend(frameon=False, fontsize=8, handlelength=1.4, labelcolor=MUTED)
        buffer = io.StringIO()
        empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=empty)
    return _inline(buffer.getvalue())


def _labels(keys: list[str]) -> list[str]:
    """The part of each name that tells the curves of a panel apart."""
    heads = [key.partition("/")[0] for key in keys]
    if len(set(heads)) == len(heads):
        return heads
    return [key.partition("/")[2] if len(set(heads)) == 1 else key for key in keys]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most POINTS points: means of as many neighbours as it takes."""
    size = math.ceil(len(points) / POINTS)
    thinned = []
    for start in range(0, len(points), size):
        steps, values = zip(*points[start : start + size], strict=True)
        thinned.append((sum(steps) / len(steps), sum(values) / len(values)))
    return thinned


def _inline(svg: str) -> str:
    """The drawing alone: no prolog, no ids that repeat on the page, no fixed size, and the page's colours."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg class="plot" \1 aria-hidden="true">', svg, count=1)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return svg


def chain(sources: Sequence[Sequence[int]]) -> list[str]:
    """One drawing per step, to be stacked: a dot, with a line from each of its inputs above it.

    `sources[i]` holds the positions of the steps that step i reads; those that are not above it are left out. A step
    keeps its lane until the last step that reads it, as branches do in a version history. One that reads more than
    GATHERED others, as a report of all, has no lines: every lane would go on until there.
    """
    above = [sorted({s for s in inputs if s < i}) for i, inputs in enumerate(sources)]
    sources = [inputs if len(inputs) <= GATHERED else [] for inputs in above]
    last = {s: i for i, inputs in enumerate(sources) for s in inputs}  # the last reader of each step
    lanes: list[int] = []
    for i in range(len(sources)):
        held = {lanes[s] for s in range(i) if last.get(s, s) > i}
        lanes.append(next(lane for lane in range(i + 1) if lane not in held))
    width = LANE * (max(lanes, default=0) + 1)
    drawings = []
    for i, inputs in enumerate(sources):
        x, parts = _x(lanes[i]), []
        for s in range(i):
            if last.get(s, s) > i:
                parts.append(_line(lanes[s], f"M{_x(lanes[s])} 0V{ROW}"))
            if s in inputs:
                bend = f"C{_x(lanes[s])} {MIDDLE - 4} {x} 0 {x} {MIDDLE - DOT - 3}"
                parts.append(_line(lanes[s], f"M{_x(lanes[s])} 0{bend}"))
        if i in last:
            parts.append(_line(lanes[i], f"M{x} {MIDDLE}V{ROW}"))
        if inputs:
            tip = MIDDLE - DOT
            parts.append(f'<path d="M{x} {tip}l-3.5 -5h7z" style="fill: var(--ink)"/>')
        parts.append(f'<circle cx="{x}" cy="{MIDDLE}" r="{DOT}" style="fill: var({_color(lanes[i])})"/>')
        size = f'width="{width}" height="{ROW}" viewBox="0 0 {width} {ROW}"'
        drawings.append(f'<svg class="lanes" {size} aria-hidden="true">{"".join(parts)}</svg>')
    return drawings


def _x(lane: int) -> float:
    return lane * LANE + LANE / 2


def _color(lane: int) -> str:
    return f"--c{lane % SERIES + 1}"


def _line(lane: int, path: str) -> str:
    return f'<path d="{path}" style="fill: none; stroke: var({_color(lane)}); stroke-width: 1.5"/>'


def interval(low: Any, value: Any, high: Any) -> str:
    """A share in [0, 1] with its confidence interval, on a scale with a tick at one half; "" where one is missing."""
    if not all(map(finite, (low, value, high))):
        return ""
    low, value, high = (round(100 * min(1.0, max(0.0, share)), 1) for share in (low, value, high))
    return (
        '<svg class="interval" viewBox="-4 0 108 10" aria-hidden="true">'
        '<path d="M0 5H100" style="stroke: var(--rule)"/><path d="M50 0V10" style="stroke: var(--muted)"/>'
        f'<path d="M{low} 5H{high}" style="stroke: var(--c1); stroke-width: 3"/>'
        f'<circle cx="{value}" cy="5" r="3" style="fill: var(--c1)"/></svg>'
    )


def whisker(low: float, value: float, high: float, reference: float) -> str:
    """A mean with its error, all as shares of a scale that the rows of a table have; `reference` is a tick."""
    low, value, high, reference = (round(100 * share, 1) for share in (low, value, high, reference))
    return (
        '<svg class="interval" viewBox="-4 0 108 10" aria-hidden="true">'
        f'<path d="M0 5H100" style="stroke: var(--rule)"/><path d="M{reference} 0V10" style="stroke: var(--muted)"/>'
        f'<path d="M{low} 5H{high}" style="stroke: var(--c1); stroke-width: 3"/>'
        f'<circle cx="{value}" cy="5" r="3" style="fill: var(--c1)"/></svg>'
    )


def reliability(bins: Sequence[Sequence[Any]]) -> str:
    """The share of pairs ranked right (0 to 1) over a reward's confidence (0.5 to 1); calibrated is dashed."""
    points = [(2 * sure - 1, share) for sure, share, _ in bins if finite(sure) and finite(share)]
    if not points:
        return ""
    dots = [(round(100 * sure, 1), round(100 - 100 * share, 1)) for sure, share in points]
    line = "L".join(f"{x} {y}" for x, y in dots)
    circles = "".join(f'<circle cx="{x}" cy="{y}" r="2.5" style="fill: var(--c1)"/>' for x, y in dots)
    return (
        '<svg class="reliability" viewBox="-4 -4 108 108" role="img" aria-label="share ranked right by confidence">'
        '<path d="M0 0V100H100" style="stroke: var(--rule); fill: none"/>'
        '<path d="M0 50L100 0" style="stroke: var(--muted); stroke-dasharray: 3 3"/>'
        f'<path d="M{line}" style="stroke: var(--c1); fill: none"/>{circles}</svg>'
    )
