"""The forecast of every step of some recipes beside what was measured, and the table of prices that it is made with.

    python benchmarks/forecast.py --recipe recipes/tiny.yaml                          # of the steps that are done
    python benchmarks/forecast.py --run --recipe recipes/tiny.yaml output_dir=new     # planned, run, and compared
    python benchmarks/forecast.py --run --shrink recipes/mistral-7b/apo.yaml          # the recipe with tiny models
    python benchmarks/forecast.py --calibrate --recipe a.yaml --recipe b.yaml         # fits this machine's row to them

With `--run` forecasts are those of the plan, before the first step; else those of a plan of these steps whose inputs
are there. `--write PAGE` puts the tables between the marks of a page. Everything runs with one thread: threads that
wait for each other use a processor, too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from forecast_fit import calibrate

from trimtab.pipelines.forecasting import machines, outlook
from trimtab.pipelines.planning import commands
from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.reporting.numerals import duration, size
from trimtab.pipelines.running import grouping
from trimtab.pipelines.shrinking import recipe as shrinking

GOAL_MEMORY, GOAL_TIME = 0.15, 0.30
SLACK_MEMORY, SLACK_TIME = 50 * 2**20, 1.0  # bytes and seconds by which nobody plans otherwise
BEGIN, END = "<!-- measured -->\n", "<!-- end -->\n"
RUN = Path(__file__).parent.parent / "scripts" / "run.py"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}


@dataclass
class Study:
    """A recipe, the outlook on its steps, and the seconds that a clock showed of its run, where it was run here."""

    title: str
    path: str
    overrides: list[str]
    seconds: float = 0.0
    ahead: outlook.Outlook = field(init=False)

    def __post_init__(self) -> None:
        recipe = Recipe.load(self.path, self.overrides)
        launches = {step.name: commands.launch(step) for step in recipe.steps}
        words = {step.name: commands.command(recipe, step) for step in recipe.steps}
        shares = grouping.shares(words, commands.launch)
        self.ahead = outlook.Outlook(recipe.steps, launches, machines.at_hand(), shares)

    def run(self) -> None:
        """Runs what is not done of it."""
        started = time.time()
        words = [sys.executable, str(RUN), self.path, *self.overrides]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.seconds = time.time() - started

    def measured(self) -> list[tuple[Step, dict[str, Any], bool]]:
        """The steps that are done, with their records, and whether each is taken to begin a launch."""
        steps = []
        for step in Recipe.load(self.path, self.overrides).steps:
            record = artifacts.read_done(step.dir) if step.done else None
            if record and "peak_bytes" in record and step.name in self.ahead.forecasts:
                steps.append((step, record, self.ahead.forecasts[step.name].launch > 0))
        return steps


def compare(study: Study) -> str:
    """A section in Markdown: how near the forecasts are, and those of each step beside what was measured."""
    lines = ["| step | kind | memory: forecast | measured | error | cpu s: forecast | measured | error |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for step, record, _ in study.measured():
        ahead = study.ahead.forecasts[step.name]
        of_memory = _cells(size(ahead.peak), size(record["peak_bytes"]), ahead.peak / record["peak_bytes"])
        taken = record["cpu_seconds"]
        of_time = _cells(f"{ahead.processor_seconds:.1f}", f"{taken:.1f}", ahead.processor_seconds / taken)
        lines.append(f"| {step.name} | {step.kind} | {of_memory} | {of_time} |")
    counts = _summary(study)
    if study.seconds:
        said = f"{duration(study.ahead.seconds)} forecast, {duration(study.seconds)} measured"
        counts += [f"by the clock, with plan and launches: {said}"]
        again = Study(study.title, study.path, study.overrides)
        counts += [f"forecast when the inputs are there: {line}" for line in _summary(again)[:2]]
    return "\n".join([f"## {study.title}", "", *(f"- {line}" for line in counts), "", *lines, ""])


def _cells(ahead: str, measured: str, ratio: float) -> str:
    return f"{ahead} | {measured} | {ratio - 1:+.0%}"


def _summary(study: Study) -> list[str]:
    records = [(study.ahead.forecasts[step.name], record) for step, record, _ in study.measured()]
    memories = [(ahead.peak, record["peak_bytes"]) for ahead, record in records]
    times = [(ahead.processor_seconds, record["cpu_seconds"]) for ahead, record in records]
    ahead, measured = (sum(column) for column in zip(*times, strict=True))
    return [
        _within("memory", memories, GOAL_MEMORY, SLACK_MEMORY),
        _within("time", times, GOAL_TIME, SLACK_TIME),
        f"all steps: {ahead:.0f} processor seconds forecast, {measured:.0f} measured",
    ]


def _within(name: str, pairs: list[tuple[float, float]], goal: float, slack: float) -> str:
    """How many are within the goal, and how many within it or the slack."""
    errors = [abs(ahead / measured - 1) for ahead, measured in pairs]
    near = [abs(ahead - measured) <= slack for ahead, measured in pairs]
    within = sum(error <= goal for error in errors)
    either = sum(error <= goal or is_near for error, is_near in zip(errors, near, strict=True))
    amount = size(slack) if name == "memory" else f"{slack:g} s"
    counts = f"{within} of {len(errors)} steps within {goal:.0%}, {either} within {goal:.0%} or {amount}"
    return f"{name}: {counts}; median error {median(errors):.1%}"


def write(page: Path, text: str) -> None:
    """Puts a text between the marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}{text}{END}{rest.partition(END)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", action="append", nargs="+", default=[], metavar=("RECIPE", "key=value"))
    parser.add_argument("--shrink", action="append", nargs="+", default=[], metavar=("RECIPE", "key=value"))
    parser.add_argument("--folder", help="output_dir of all of them: a new one, that nothing be done already")
    parser.add_argument("--run", action="store_true", help="run what is not done, and say how near the plan was")
    parser.add_argument("--calibrate", action="store_true", help="fit this machine's row to the steps that are done")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="a page of results for the tables")
    options = parser.parse_args()
    os.environ.update(ONE_THREAD)
    folder = [f"output_dir={options.folder}"] if options.folder else []
    studies = [Study(path, path, [*overrides, *folder]) for path, *overrides in options.recipe]
    for path, *overrides in options.shrink:
        studies.append(Study(f"{path}, shrunk", shrinking.shrunk(path, overrides), folder))
    load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    for study in studies if options.run else ():
        study.run()
    if options.calibrate:
        calibrate([study.measured() for study in studies])
        studies = [Study(study.title, study.path, study.overrides) for study in studies]
    text = "\n".join(
        [
            f"{time.strftime('%d %B %Y, %H:%M')}; load of the machine at the beginning {load}.",
            "",
            *map(compare, studies),
        ]
    )
    print(text)
    if options.write:
        write(options.write, text)


if __name__ == "__main__":
    main()
