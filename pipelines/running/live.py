"""`trimtab report`: the page of a recipe's folder as it is now, and with --live again and again while the run goes."""

from __future__ import annotations

import time
from pathlib import Path

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.files import write_atomically
from trimtab.pipelines.recording import locks, views
from trimtab.pipelines.reporting import page, records
from trimtab.pipelines.reporting.records import Record

SECONDS = 5  # between two pages
SAMPLES = 8


def write(run: Path, target: Path, *, refresh: int | None = None) -> int:
    """Writes the page of a recipe's folder, and returns how many of its steps are done. Raises RecipeError."""
    steps = _records(run)
    if not steps:
        raise RecipeError(f"{run} has no steps: name the folder of a recipe, such as runs/mine")
    write_atomically(target, page.render(steps, SAMPLES, run.resolve().name, refresh))
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
