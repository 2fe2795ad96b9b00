"""`trimtab status`: what of a recipe is done, what runs and how far it is, what comes next, and when all is done.

How far a training is stands in its metrics: optimizer steps, and the pace of them since it was launched. How many
there will be, and how long the others take, is the forecast's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.pipelines.forecasting import outlook
from trimtab.pipelines.forecasting.machines import at_hand
from trimtab.pipelines.planning import commands
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Launch, Recipe, Step
from trimtab.pipelines.recording import artifacts, locks, tracking, views
from trimtab.pipelines.reporting.numerals import DASH, duration
from trimtab.pipelines.running import consents, environment, exits, grouping, labelling
from trimtab.pipelines.running.listing import columns

GAP = 600.0  # seconds without a log after which a new launch is taken to have begun
HEADINGS = ("step", "state", "", "to go")


@dataclass(frozen=True)
class Pace:
    """How far a training is: the last optimizer step that was logged, when, and the seconds that one takes."""

    step: int
    logged: float
    seconds: float


@exits.command
def status(path: str, overrides: Sequence[str] = (), *, trusting: bool = False) -> int:
    """Prints a line for each step of a recipe, and how long the whole has to go. Returns 2 for a mistake in it."""
    environment.prepare()
    try:
        recipe = as_launched(path, overrides, trusting=trusting)
    except RecipeError as error:
        return environment.fail(str(error))
    holder = locks.holder(recipe.run / ".lock")
    print(f"{recipe.name}: {f'worked on by {holder}' if holder else 'nobody works on it'}")
    pending = [step for step in recipe.steps if not step.done]
    launches: dict[str, Launch] = {step.name: commands.launch(step) for step in pending}
    starts = {step.name: commands.command(recipe, step) for step in pending}
    machine = at_hand() if pending else None
    ahead = outlook.Outlook(pending, launches, machine, grouping.shares(starts, commands.launch))
    rows: list[tuple[str, ...]] = [HEADINGS]
    to_go = 0.0
    for step in recipe.steps:
        *words, seconds = _line(step, ahead)
        rows.append((step.name, *words, duration(seconds) if seconds is not None else DASH))
        to_go += seconds or 0
    print(columns(rows))
    done = len(recipe.steps) - len(pending)
    unknown = [step.name for step in pending if step.name not in ahead.forecasts]
    more = f", without {', '.join(unknown)}, of which nothing can be said" if unknown else ""
    print(f"{done} of {len(recipe.steps)} steps are done; {duration(to_go)} to go{more}")
    return 0


def as_launched(path: str, overrides: Sequence[str] = (), *, trusting: bool = False) -> Recipe:
    """The recipe on the ranks with which it was launched last, where it was. Raises RecipeError."""
    recipe = consents.load(path, overrides, trusting=trusting)
    known = [plan for plan in views.plans(recipe.run) if plan["path"] == os.path.abspath(recipe.path)]
    if known and known[-1].get("ranks"):
        return consents.load(path, overrides, Ranks(every=known[-1]["ranks"]), trusting=trusting)
    return recipe


def pace(rows: Sequence[dict]) -> Pace | None:
    """How far a training is by the rows of its metrics.jsonl, None where nothing tells.

    The seconds are those of the rows since the last gap, so a pause between two launches is not part of them.
    """
    logged = [(row["step"], row["time"]) for row in rows if "step" in row and "train/loss" in row]
    if not logged:
        return None
    recent = [logged[-1]]
    for step, moment in reversed(logged[:-1]):
        if step >= recent[0][0] or recent[0][1] - moment > GAP:
            break
        recent.insert(0, (step, moment))
    (first, began), (last, ended) = recent[0], recent[-1]
    return Pace(last, ended, (ended - began) / (last - first) if last > first else 0.0)


def _line(step: Step, ahead: outlook.Outlook) -> tuple[str, str, float | None]:
    """The state of a step, more of it, and the seconds that it has to go."""
    if step.done:
        record = artifacts.read_done(step.dir) or {}
        return "done", f"in {duration(record.get('seconds'))}", 0
    forecast = ahead.forecasts.get(step.name)
    seconds = forecast.seconds + forecast.launch if forecast else None
    holder = locks.holder(locks.of_folder(step.dir))
    if holder is None or not artifacts.is_begun(step.dir):  # a launcher holds the next steps of its launch, too
        waits = [source.name for source in step.waiting]
        if not waits and (asked := labelling.of_step(step.dir)):
            return "waiting", labelling.progress(asked), seconds
        return step.state, f"after {', '.join(waits)}" if waits else "next", seconds
    reached = pace(tracking.read(step.dir / "metrics.jsonl"))
    total = _updates(step, ahead)
    if reached is None or not total:
        return "running", holder, seconds
    if reached.seconds:
        seconds = max(0.0, (total - reached.step) * reached.seconds - (time.time() - reached.logged))
    return "running", f"step {reached.step} of {total:.0f}; {holder}", seconds


def _updates(step: Step, ahead: outlook.Outlook) -> float:
    """How many optimizer steps a training will have; 0 where nobody can say."""
    if ahead.forecaster is None or step.name not in ahead.forecasts:
        return 0
    work, _ = ahead.forecaster.work(step, ahead.forecaster.setting(step, ahead.launches[step.name]))
    return work.updates
