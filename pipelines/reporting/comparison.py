"""The points of a sweep, compared: for each metric a table of settings, with errors over seeds and prompts.

Which metrics those are says the class of the step's kind (`Shows.compares`). The first setting is what the others are
compared with. Every comparison of the page counts for Holm's correction, so that the probability of one or more false
differences among all of them is at most LEVEL.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from trimtab.pipelines.algorithms import settings
from trimtab.pipelines.algorithms.settings import LEVEL, Cells, Difference, Estimate
from trimtab.pipelines.planning.points import Point
from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.reporting import by_prompt, plots, records
from trimtab.pipelines.reporting.numerals import finite
from trimtab.pipelines.reporting.records import Record

OF_SETTINGS = dict[str, dict[str, dict[str, float]]]  # setting -> seed -> prompt -> value


@dataclass
class Row:
    """A setting in the table of a metric; `gap` and its corrected `probability` are to the first setting."""

    setting: str
    estimate: Estimate
    gap: Difference | None = None
    probability: float = math.nan

    @property
    def differs(self) -> bool:
        """Whether the correction leaves a difference."""
        return self.probability < LEVEL

    @property
    def verdict(self) -> str:
        """What can be said of the difference, in a few words."""
        if self.gap is None:
            return "what the others are compared with"
        if math.isnan(self.probability):
            return "not known: one value of each"
        if not self.differs:
            return "no difference"
        return "higher" if self.gap.mean > 0 else "lower"


@dataclass
class Comparison:
    """A table for each metric, `same` names those that no setting changes, and curves have a line for each setting."""

    recipe: str
    points: Sequence[Point]
    done: int  # points
    settings: Sequence[str]
    tables: dict[str, list[Row]] = field(default_factory=dict)
    same: list[str] = field(default_factory=list)
    curves: list[tuple[str, dict[str, list[tuple[float, float]]]]] = field(default_factory=list)

    @property
    def comparisons(self) -> int:
        """How many differences are told, each with a probability."""
        rows = (row for table in self.tables.values() for row in table)
        return sum(row.gap is not None and not math.isnan(row.probability) for row in rows)


def compare(recipe: Recipe) -> Comparison:
    """All that the finished steps of a recipe's points have to say."""
    done = sum(all(step.done for step in point.steps.values()) for point in recipe.points)
    names = list(dict.fromkeys(point.setting or "the recipe" for point in recipe.points))
    result = Comparison(recipe.name, recipe.points, done, names)
    read: dict[str, Record] = {}
    for name in dict.fromkeys(step.written for step in recipe.steps):
        of_points = [(point, point.steps[name]) for point in recipe.points if name in point.steps]
        finished = [(point, step) for point, step in of_points if step.done]
        for _, step in finished:
            if step.name not in read:
                read[step.name] = records.read(step.output, step)
        for metric, cells in _metrics([(point, read[step.name]) for point, step in finished]).items():
            title = f"{name}: {metric.removesuffix('/mean')}"
            rows = _rows(cells)
            if len(rows) > 1 and all(row.gap is None or row.gap.is_none for row in rows):
                result.same.append(title)
            else:
                result.tables[title] = rows
        if len({frozenset(names) for names in _by_setting(finished).values()}) > 1:
            result.curves += _curves(name, [(point, read[step.name]) for point, step in finished])
    _correct(result)
    return result


def _by_setting(of_points: Sequence[tuple[Point, Step]]) -> dict[str, list[str]]:
    """The names of a step's forms in each setting."""
    names: dict[str, list[str]] = {}
    for point, step in of_points:
        names.setdefault(point.setting, []).append(step.name)
    return names


def _metrics(of_points: Sequence[tuple[Point, Record]]) -> dict[str, OF_SETTINGS]:
    """The values of each metric by which the points of a step are compared."""
    metrics: dict[str, OF_SETTINGS] = {}
    for point, record in of_points:
        patterns = records.shows(record).compares
        numbers = {name: value for name, value in record["metrics"].items() if finite(value)}
        of_prompts = by_prompt.read(record["output"]) if patterns else {}
        for metric in plots.matching(numbers, patterns):
            values = of_prompts.get(metric) or {"": float(numbers[metric])}
            metrics.setdefault(metric, {}).setdefault(point.setting or "the recipe", {})[point.seeds] = values
    return metrics


def _rows(cells: Mapping[str, Cells]) -> list[Row]:
    first = next(iter(cells))
    rows = []
    for setting, ours in cells.items():
        row = Row(setting, settings.estimate(ours))
        if setting != first:
            row.gap = settings.difference(*_of_common_seeds(ours, cells[first]))
        rows.append(row)
    return rows


def _of_common_seeds(ours: Cells, theirs: Cells) -> tuple[Cells, Cells]:
    """Both without the seeds that only one of them has by now; as they are where they share none."""
    shared = [seed for seed in ours if seed in theirs]
    if not shared:
        return ours, theirs
    return {seed: ours[seed] for seed in shared}, {seed: theirs[seed] for seed in shared}


def _correct(comparison: Comparison) -> None:
    rows = [row for table in comparison.tables.values() for row in table if row.gap]
    corrected = settings.holm([row.gap.probability for row in rows if row.gap])
    for row, probability in zip(rows, corrected, strict=True):
        row.probability = probability


def _curves(
    name: str, of_points: Sequence[tuple[Point, Record]]
) -> Iterator[tuple[str, dict[str, list[tuple[float, float]]]]]:
    """(title, curve of each setting) of the metrics in a kind's panels, the mean of the seeds that have a value."""
    about = records.shows(of_points[0][1])
    patterns = [pattern for panel in about.panels.values() for pattern in panel if not about.by_round]
    logged = dict.fromkeys(key for _, record in of_points for row in record["rows"] for key in row)
    for metric in plots.matching(logged, patterns):
        values: dict[str, dict[float, list[float]]] = {}
        for point, record in of_points:
            of_steps = values.setdefault(point.setting or "the recipe", {})
            for row in record["rows"]:
                if finite(row.get("step")) and finite(row.get(metric)):
                    of_steps.setdefault(row["step"], []).append(row[metric])
        means = {
            setting: [(step, sum(numbers) / len(numbers)) for step, numbers in sorted(of_steps.items())]
            for setting, of_steps in values.items()
        }
        if all(len(curve) > 1 for curve in means.values()):
            yield f"{name}: {metric}", means
