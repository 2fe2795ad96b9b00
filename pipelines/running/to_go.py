"""What a terminal shows of a whole run: a header, and above each step how long all of it has to go.

The seconds are the forecast's, stretched by what the steps since then have taken.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence

from trimtab.pipelines.forecasting import machines, outlook
from trimtab.pipelines.planning.recipe import Launch, Recipe, Step
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.reporting.numerals import duration
from trimtab.pipelines.running import claiming

AHEAD = "TRIMTAB_AHEAD"  # {step: seconds} of a run, for its launches
TRUST = 0.1  # in the forecast, as if so much of the run had taken what it said


def begin(recipe: Recipe, steps: Sequence[Step], launched_on: Callable[[Step], Launch | None]) -> str:
    """The header of a run, whose forecast is kept for its headings."""
    pending = [step for step in steps if not step.done]
    launches = {step.name: launched_on(step) or Launch(1, on_cpu=True) for step in pending}
    ahead = outlook.Outlook(pending, launches, machines.at_hand()).forecasts
    os.environ[AHEAD] = json.dumps({name: round(forecast.seconds, 3) for name, forecast in ahead.items()})
    done = len(steps) - len(pending)
    said = filter(None, [f"{len(steps)} steps", f"{done} of them done" if done else "", _said(recipe)])
    return f"{recipe.name}: {', '.join(said)}, in {recipe.run}"


def heading(recipe: Recipe, step: Step) -> str:
    """The line above what a step says while it runs."""
    said = _said(recipe)
    return recipe.heading(step) + (f", {said}" if said and not step.done else "")


def _said(recipe: Recipe) -> str:
    """How long the run has to go; "" where nobody has forecast it."""
    ahead: dict[str, float] = json.loads(os.environ.get(AHEAD, "{}"))
    steps = [step for step in recipe.steps if step.name in ahead]
    if not steps:
        return ""
    done = [step for step in steps if step.done]
    took = sum((artifacts.read_done(step.dir) or {}).get("seconds") or 0.0 for step in done)
    expected = sum(ahead[step.name] for step in done)
    trust = TRUST * sum(ahead.values())
    stretch = (took + trust) / (expected + trust) if expected + trust else 1.0
    waiting = [step for step in steps if step not in done]
    jobs = int(os.environ.get(claiming.MARK, recipe.ranks.jobs))
    chain = max(claiming.chains(waiting, ahead).values(), default=0.0)
    left = max(sum(ahead[step.name] for step in waiting) / jobs, chain)
    return f"about {duration(left * stretch)} to go"
