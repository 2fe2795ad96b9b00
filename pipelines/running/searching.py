"""A search runs trial after trial: each a run of the recipe's plan, which has all trials that were begun."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.planning.search import Search
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.reporting.numerals import number
from trimtab.pipelines.running import comparing, environment
from trimtab.pipelines.running.failures import FAULT


def is_search(path: str, overrides: Sequence[str]) -> bool:
    """Whether a launcher has a search to do; a mistake in the file is told by whoever plans it."""
    if environment.LAUNCHED:
        return False
    try:
        return Document.read(path, overrides).values.get("search") is not None
    except RecipeError:
        return False


def run(load: Callable[[], Recipe], run_pending: Callable[[], int]) -> int:
    """Runs all trials that are left; `run_pending` runs what is pending in the plan.

    Returns 0 when all are done, 2 for a mistake, else what a run has returned that did not end well.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return environment.fail("a search chooses trial after trial in one process: use `trimtab run`")
    try:
        study = load().study
        while study and (trial := study.next()):
            head = f"trial {trial.number + 1} of {study.search.trials}"
            values = {".".join(change.path): change.value for change in study.changes(trial)}
            environment.say(f"{head}: {', '.join(f'{path}={value}' for path, value in values.items())}")
            code = run_pending()
            if code and not (code == FAULT and study.search.on_failure == "skip"):
                return code
            value = None if code else _value(load(), study.search, trial)
            study.tell(trial, value)
            outcome = "failed" if value is None else f"{study.search.metric} {number(value)}"
            environment.say(f"{head}: {outcome}")
        comparing.present(load())
    except RecipeError as error:
        return environment.fail(str(error))
    return 0


def _value(recipe: Recipe, search: Search, trial: Any) -> float | None:
    """The metric of a trial, the mean over its seeds; None where it is no number. Raises RecipeError without it."""
    name, _, metric = search.metric.partition("/")
    values = []
    for point in recipe.points:
        if point.setting != f"trial-{trial.number}":
            continue
        record = artifacts.read_done(point.steps[name].dir)
        if record is None:
            raise RecipeError(f"{point.steps[name].name} is not done: a search runs whole trials")
        metrics = record["metrics"]
        if metric not in metrics:
            known = ", ".join(metrics)
            raise recipe.document.locate(
                RecipeError(
                    f"{name} has no {metric!r}{suggest(metric, metrics)} (it has: {known})", ("search", "metric")
                )
            )
        values.append(metrics[metric])
    mean = fmean(values)
    return mean if math.isfinite(mean) else None
