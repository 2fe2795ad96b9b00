"""`trimtab report`: the page of a recipe's folder as it is now, and with --live again and again while the run goes."""

from __future__ import annotations

import re
import time
from pathlib import Path

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.files import write_atomically
from trimtab.pipelines.recording import locks, views
from trimtab.pipelines.reporting import page, plots, records
from trimtab.pipelines.reporting.page import Change
from trimtab.pipelines.reporting.records import Record
from trimtab.pipelines.running import differences

SECONDS = 5  # between two pages
SAMPLES = 8
FROM_ABOVE = re.compile(r"\.step$")  # the fingerprint of an input, whose own options say what was changed


def write(run: Path, target: Path, *, refresh: int | None = None) -> int:
    """Writes the page of a recipe's folder, and returns how many of its steps are done. Raises RecipeError."""
    steps = _records(run)
    if not steps:
        raise RecipeError(f"{run} has no steps: name the folder of a recipe, such as runs/mine")
    write_atomically(target, page.render(steps, SAMPLES, run.resolve().name, refresh, _changes(run)))
    return sum(record["done"] for record in steps)


def follow(run: Path, target: Path) -> None:
    """Writes the page every few seconds while someone works on the run, and once more when that ends."""
    while locks.holder(run / ".lock"):
        write(run, target, refresh=SECONDS)
        time.sleep(SECONDS)
    write(run, target)


def _records(run: Path) -> list[Record]:
    """The steps of the newest plan that have begun, under their names there."""
    plans = views.plans(run)
    begun = []
    for name, place in plans[-1]["steps"].items() if plans else ():
        folder = run.parent / place
        if not folder.is_dir():
            continue
        record = records.read(folder / "output")
        record["name"] = name
        record["stage"] = record["stage"] or name
        if not record["done"]:
            record["kind"], record["notes"] = folder.name.rpartition("-")[0], []
        begun.append(record)
    return begun


def _changes(run: Path) -> list[Change]:
    """What of the finished steps is other than in the plan before the newest one."""
    plans, former = views.plans(run), views.previous(run)
    changes: list[Change] = []
    if not plans or not former:
        return changes
    for name, place in plans[-1]["steps"].items():
        before, after = run.parent / former["steps"].get(name, place), run.parent / place
        if before == after or not all((folder / "done.json").is_file() for folder in (before, after)):
            continue
        options, metrics = differences.changes(before, after)
        shown = plots.matching([key for key, *_ in metrics], records.shows(records.read(after / "output")).results)
        written = [row for row in options if not FROM_ABOVE.search(row[0])]
        changes.append(Change(name, written, [row for row in metrics if row[0] in shown]))
    return [change for change in changes if change.options or change.results]
