"""`trimtab ls`: the steps of an output directory, one a line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from trimtab.pipelines.forecasting.machines import used_disk
from trimtab.pipelines.planning import finished
from trimtab.pipelines.recording import inventory
from trimtab.pipelines.recording.inventory import Entry
from trimtab.pipelines.reporting import records, sections
from trimtab.pipelines.reporting.numerals import DASH, duration, size
from trimtab.pipelines.running import environment, exits

HEADINGS = ("step", "state", "as", "size", "checkpoints", "age", "metric")


@exits.command
def ls(root: str) -> int:
    """Prints every step of an output directory; 2 where there is none."""
    found = inventory.entries(Path(root)) if Path(root).is_dir() else []
    if not found:
        return environment.fail(f"{root} has no steps: name an output directory, such as runs")
    print(columns([HEADINGS, *map(_row, found)]))
    unreached = sum(not entry.reached for entry in found)
    print(f"{len(found)} steps, {size(sum(used_disk(entry.folder) for entry in found))}, {unreached} of no recipe")
    return 0


def columns(rows: list[tuple[str, ...]]) -> str:
    """Rows of text as a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _age(record: Mapping[str, Any] | None) -> float | None:
    """Seconds since a step was finished."""
    if not record or "finished" not in record:
        return None
    return time.time() - datetime.strptime(record["finished"], "%Y-%m-%dT%H:%M:%S%z").timestamp()


def _row(entry: Entry) -> tuple[str, ...]:
    saved = used_disk(entry.checkpoints)
    return (
        entry.name,
        _state(entry),
        ", ".join(entry.reached) or "no recipe",
        size(used_disk(entry.folder)),
        size(saved) if saved else DASH,
        duration(_age(entry.record)),
        _metric(entry),
    )


def _state(entry: Entry) -> str:
    if entry.holder:
        return "running"
    if entry.record is None:
        return "unfinished"
    return "damaged" if finished.damage(entry.folder, None) else "done"


def _metric(entry: Entry) -> str:
    """The first of the numbers that the report shows of its kind."""
    if entry.record is None:
        return DASH
    record = records.read(entry.folder / finished.OUTPUT)
    results = sections.results(record["metrics"], records.shows(record).results)
    return " ".join(results[0]) if results else DASH
