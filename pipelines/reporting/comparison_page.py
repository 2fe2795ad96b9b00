"""The comparison of a sweep's points as one HTML file that needs nothing else, and its rule in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from trimtab.pipelines.algorithms.settings import LEVEL, Difference, Estimate
from trimtab.pipelines.reporting import page, plots
from trimtab.pipelines.reporting.comparison import Comparison, Row
from trimtab.pipelines.reporting.numerals import number, with_error


def render(comparison: Comparison, chosen: str = "") -> str:
    """The page; `chosen` is what a search has chosen, in a sentence."""
    from markupsafe import Markup

    tables = {}
    for title, rows in comparison.tables.items():
        tables[title] = list(zip(rows, map(Markup, whiskers(rows)), strict=True))
    curves = [(title, Markup(plots.panel(title, series, list(series)))) for title, series in comparison.curves]
    return (
        page.templates()
        .get_template("comparison.html.j2")
        .render(
            comparison=comparison,
            chosen=chosen,
            tables=tables,
            curves=curves,
            paths=list(dict.fromkeys(path for point in comparison.points for path in point.values)),
            rule=list(rule(comparison)),
            estimate=estimate,
            counts=counts,
            probability=probability,
            shown=lambda value: number(value) if isinstance(value, int | float) else str(value),
        )
    )


def estimate(given: Estimate | Difference, signed: bool = False) -> str:
    """A mean ± its standard error."""
    return with_error({"mean": given.mean, "stderr": given.stderr}, signed)


def counts(given: Estimate) -> str:
    """Of how many seeds and prompts a mean is."""
    seeds = f"{given.seeds} seed{'' if given.seeds == 1 else 's'}"
    return f"{seeds} × {given.prompts} prompts" if given.prompts else seeds


def probability(value: float) -> str:
    """A corrected probability in few digits."""
    if math.isnan(value):
        return ""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def rule(comparison: Comparison) -> Iterator[str]:
    """How a difference is told from none, in words for a reader of the table."""
    yield (
        f"A difference is called one where a two-sided t test finds it at {LEVEL:.0%}, after Holm's "
        f"correction for the {comparison.comparisons} comparisons made here: with that probability at most, one or "
        "more of all of them are called different and are not. “No difference” means that none was found, "
        "not that there is none: more seeds and prompts find smaller ones."
    )
    yield (
        "Where two settings have the same seeds, and each seed the same prompts, differences are taken value by value "
        "(paired). Seeds and prompts both count as drawn at random: the variance of a mean is (MS of seeds + MS of "
        "prompts - MS of the rest) / (seeds × prompts). Where seeds differ more than the rest explains, the test has "
        "as many degrees of freedom as there are seeds, less one."
    )
    estimates = [row.estimate for rows in comparison.tables.values() for row in rows]
    if any(given.seeds == 1 for given in estimates):
        yield "Where there is one seed, errors are over prompts alone, and say nothing of other seeds."
    if any(given.seeds > 1 and not given.prompts for given in estimates):
        yield "Where no prompts are counted, a metric has one value for each seed, or each seed its own prompts."


def whiskers(rows: Sequence[Row]) -> list[str]:
    """The drawing of each row's mean and error, on a scale for all of them."""
    reach = [row.estimate.stderr if math.isfinite(row.estimate.stderr) else 0.0 for row in rows]
    lows = [row.estimate.mean - error for row, error in zip(rows, reach, strict=True)]
    highs = [row.estimate.mean + error for row, error in zip(rows, reach, strict=True)]
    start, width = min(lows), max(highs) - min(lows)
    if not width > 0:
        return [""] * len(rows)

    def share(value: float) -> float:
        return (value - start) / width

    control = share(rows[0].estimate.mean)
    return [
        plots.whisker(share(low), share(row.estimate.mean), share(high), control)
        for low, row, high in zip(lows, rows, highs, strict=True)
    ]
