"""Launches: an `accelerate launch` for each pending step, or for several small ones that are launched alike."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

from trimtab.pipelines.forecasting import machines, micro_batch, outlook
from trimtab.pipelines.planning import commands, memos, preflight, provenance
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Launch, Recipe, Step
from trimtab.pipelines.planning.table import table
from trimtab.pipelines.recording import reach, views
from trimtab.pipelines.running import (
    cards,
    claiming,
    comparing,
    consents,
    disk,
    environment,
    exits,
    failures,
    grouping,
    locking,
    overviews,
    searching,
    slurm,
    to_go,
)
from trimtab.pipelines.running.processes import launch

STOPPED = {128 + signal.SIGINT: "Ctrl-C", 128 + signal.SIGTERM: "SIGTERM"}  # exit codes


@exits.command
def run(
    path: str,
    overrides: Sequence[str] = (),
    *,
    only: str | None = None,
    start: str | None = None,
    extra: Sequence[str] = (),
    sbatch: Sequence[str] | None = None,
    rebuild: bool = False,
    trusting: bool = False,
    jobs: int = 1,
) -> int:
    """Launches the pending steps, small ones together; with `sbatch`, options of that command, as one Slurm job.

    With several `jobs`, so many launches at once make the steps that do not wait for each other, each on its share of
    the accelerators. With `rebuild`, also those whose artifacts are damaged, which are refused otherwise.

    Returns 0 when every chosen step is done or queued, 2 for a mistake in the recipe, a damaged artifact or a run
    directory in use, 75 when a step waits for people, else the exit code of the rank that failed.
    """
    environment.prepare()
    if sbatch is not None and jobs > 1:
        return environment.fail("--jobs divides one machine: queue `trimtab run --jobs` itself as a job")
    load = functools.partial(consents.load, path, overrides, _ranks(extra, sbatch, jobs), trusting=trusting)
    if not searching.is_search(path, overrides):
        return _run(load, only, start, extra, sbatch, rebuild)
    if sbatch is not None:
        return environment.fail("a search chooses trial after trial: queue `trimtab run` itself as a job")
    return searching.run(load, lambda: _run(load, only, start, extra, sbatch, rebuild))


def _run(
    load: Callable[[], Recipe],
    only: str | None,
    start: str | None,
    extra: Sequence[str],
    sbatch: Sequence[str] | None,
    rebuild: bool,
) -> int:
    """Launches or queues what is pending in the plan."""
    try:
        recipe = load()
        steps = recipe.select(only, start)
        provenance.require_whole(recipe, steps, rebuild=rebuild)
        provenance.require_content(recipe, (step for step in steps if not step.done))
        preflight.check(recipe, steps, launch=functools.partial(_launched_on, extra, sbatch))
        preflight.require_inputs(steps)
        launches = _launches(recipe, steps, extra, sbatch)
    except RecipeError as error:
        return environment.fail(str(error))
    if sbatch is not None:
        return _queue(recipe, launches, sbatch)
    try:
        with locking.lock(recipe.run, shlex.join(sys.argv)) if launches else contextlib.nullcontext():
            views.record(recipe)
            environment.note(filter(None, [reach.settle() if launches and recipe.wandb is not None else None]))
            launched_on = functools.partial(_launched_on, extra, None)
            if launches:
                print(to_go.begin(recipe, steps, launched_on))
            shared = grouping.keys(steps, launches, launched_on, recipe.ranks.jobs)
            return _launch_all(recipe, steps, launches, shared, launched_on)
    except RecipeError as error:
        return environment.fail(str(recipe.document.locate(error)))
    except locking.Locked as error:
        return environment.fail(str(error))
    except disk.Refused as error:
        environment.fail(str(error))
        return failures.FAULT


@exits.command
def plan(
    path: str,
    overrides: Sequence[str] = (),
    *,
    only: str | None = None,
    start: str | None = None,
    extra: Sequence[str] = (),
    sbatch: Sequence[str] | None = None,
    verbose: bool = False,
    budget: str | None = None,
    trusting: bool = False,
    jobs: int = 1,
) -> int:
    """Checks the recipe, prints what would run, and forecasts what it takes. Returns 2 for a mistake in it.

    `budget` names a machine to plan for in the place of this one, such as `8xh100`.
    """
    environment.prepare()
    memos.announce(lambda text: environment.note([text]))
    try:
        planned_for = machines.budget(budget) if budget else None
        ranks = _ranks(extra, sbatch, jobs)
        if planned_for:
            ranks = dataclasses.replace(ranks, devices=0 if planned_for.on_cpu else planned_for.count)
        recipe = consents.load(path, overrides, ranks, trusting=trusting, refusing=False)
        steps = recipe.select(only, start)
        launched_on: Callable[[Step], Launch | None] = functools.partial(_launched_on, extra, sbatch)
        if planned_for:
            launched_on = functools.partial(outlook.launch, planned_for)
        unseen = preflight.check(recipe, steps, without_hub=True, launch=launched_on)
        steps = tuple(micro_batch.fitted(step, launched_on(step), planned_for) for step in steps)
        auto = ranks.auto if sbatch is None else slurm.CONFIG
        print(table(recipe, steps, extra, auto, verbose=verbose))
        if code := consents.section(recipe):
            print(code)
        if sbatch is not None:
            print("\n" + slurm.script(recipe, _launches(recipe, steps, extra, sbatch), sbatch, Path.cwd()))
        if seen := list(filter(preflight.is_open, steps)):
            # a job of Slurm launches each step by itself
            words = {} if sbatch is not None else _launches(recipe, seen, extra, sbatch)
            shares = grouping.shares(words, launched_on, recipe.ranks.jobs)
            print("\n" + outlook.text(recipe, seen, launched_on, planned_for, shares))
        environment.note([*map(str, unseen), *provenance.notes(recipe.steps)])
    except RecipeError as error:
        return environment.fail(str(error))
    return 0


@exits.command
def check_rewards(
    path: str,
    overrides: Sequence[str] = (),
    *,
    only: str | None = None,
    start: str | None = None,
    trusting: bool = False,
) -> int:
    """Loads and tries every reward, and prints what it finds. Returns 1 when one of them cannot be used."""
    environment.prepare()
    try:
        recipe = consents.load(path, overrides, Ranks(), trusting=trusting)
        steps = recipe.select(only, start)
        preflight.check(recipe, steps)
    except RecipeError as error:
        return environment.fail(str(error))
    from trimtab.pipelines.scoring import reward_check

    passed = True
    for ok, lines in reward_check.check(steps):
        print(lines, flush=True)
        passed = passed and ok
    return 0 if passed else 1


def _ranks(extra: Sequence[str], sbatch: Sequence[str] | None, jobs: int = 1) -> Ranks:
    local = Ranks(words=tuple(extra), jobs=jobs)
    return local if sbatch is None else Ranks(every=local.said or slurm.ranks(sbatch))


def _launched_on(extra: Sequence[str], sbatch: Sequence[str] | None, step: Step) -> Launch | None:
    return commands.launch(step, extra) if sbatch is None else slurm.launched_on(sbatch)


def _launches(
    recipe: Recipe, steps: Sequence[Step], extra: Sequence[str], sbatch: Sequence[str] | None
) -> dict[str, list[str]]:
    """The launch of every pending step, by its name."""
    auto = None if sbatch is None else slurm.CONFIG
    return {step.name: commands.command(recipe, step, extra, auto) for step in steps if not step.done}


def _queue(recipe: Recipe, launches: dict[str, list[str]], sbatch: Sequence[str]) -> int:
    """Submits one job for all pending steps; 1 where there is no Slurm, or it refuses."""
    if not launches:
        print("every step is done")
        return 0
    path = recipe.run / "slurm.sh"
    try:
        job = slurm.submit(slurm.script(recipe, launches, sbatch, Path.cwd()), path)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"error: sbatch {path}: {getattr(error, 'stderr', None) or error}", file=sys.stderr)
        return 1
    print(f"job {job}: {len(launches)} steps, {path}; its output will be in {recipe.run}/slurm-{job}.log")
    return 0


def _launch_all(
    recipe: Recipe,
    steps: Sequence[Step],
    launches: dict[str, list[str]],
    shared: Mapping[str, Hashable],
    launched_on: Callable[[Step], Launch | None],
) -> int:
    """Launches the pending steps in order and stops at the first one that fails; `shared` is as in grouping.keys."""
    launched: list[Step] = []
    for position, step in enumerate(steps):
        if step in launched:  # with one before it; the launch has told of it
            continue
        group = grouping.group(steps[position:], shared) if step.name in launches else [step]
        several = min(recipe.ranks.jobs, len(group))
        if several == 1:
            print(to_go.heading(recipe, step))
        if step.name not in launches:
            print(f"    done: {step.output}")
            continue
        if several > 1:
            launched = group
            code = _launch_several(recipe, group, launches, several)
        else:
            with locking.step_locks(group) as locks:
                if step.done:  # by now
                    print(f"    done: {step.output}")
                    continue
                launched = locks.steps
                words = commands.together([launches[other.name] for other in launched])
                print(f"    {commands.typed(words)}", flush=True)
                code = launch(words, recipe, locks.release_done)
        if ended := _ended(code, steps, launched):
            return ended
        preflight.check_readers(recipe, launched, steps, launched_on)
    views.record(recipe)
    if launched:
        cards.write(recipe)
        overviews.record(recipe)
    comparing.show(recipe, steps)
    environment.note(provenance.notes(recipe.steps))
    return 0


def _ended(code: int, steps: Sequence[Step], launched: Sequence[Step]) -> int:
    """The exit code with which a launch ends the run, having told why; 0 where the run goes on."""
    left = [step for step in steps if not step.done]
    if code in STOPPED:
        print(f"stopped by {STOPPED[code]} with {len(left)} steps left. The same command continues here")
        return code
    if code == failures.WAITS:
        print(f"{len(left) - 1} steps after it were not started")
        return code
    undone = [step for step in launched if step in left]
    failed = next(filter(failures.is_told, undone), None)
    if code == failures.MISTAKE and failed is None:  # which the launch has told, of whichever step to come
        print(f"{len(left)} steps were not started. The same command continues here", file=sys.stderr)
        return code
    if code == 0 and not undone:
        return 0
    failed = failed or next(iter(undone), launched[-1])
    reason = f"signal {-code}" if code < 0 else f"exit code {code}"
    after = len(steps) - steps.index(failed) - 1
    message = f"{failed.name} failed ({reason}); {after} steps after it were not started"
    print(f"error: {message}. The same command continues here", file=sys.stderr)
    return code if code > 0 else 1


def _launch_several(recipe: Recipe, group: Sequence[Step], launches: dict[str, list[str]], jobs: int) -> int:
    """Launches the same steps several times at once; each launch takes those that it makes."""
    words = commands.together([launches[step.name] for step in group])
    print(f"{len(group)} steps by {jobs} launches at once\n    {commands.typed(words)}", flush=True)
    return launch(words, recipe, shares=claiming.shares(jobs, recipe.ranks.count))
