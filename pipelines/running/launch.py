"""Launches: one `accelerate launch` for each pending step, each in processes of its own."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from trimtab.pipelines import ROOT
from trimtab.pipelines.forecasting import machines, outlook
from trimtab.pipelines.planning import commands, preflight, provenance
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Launch, Recipe, Step
from trimtab.pipelines.planning.table import table
from trimtab.pipelines.recording import views
from trimtab.pipelines.running import consents, disk, environment, exits, failures, locking, orphans, slurm

QUIET = ROOT / "scripts" / "_accelerate.py"  # accelerate's command, with the exit code of the rank that failed
GRACE = 300.0  # seconds between asking the ranks to stop and killing them: a large model's checkpoint takes minutes
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
) -> int:
    """Launches the pending steps; with `sbatch`, options of that command, as one Slurm job.

    With `rebuild`, also those whose artifacts are damaged, which are refused otherwise. Returns 0 when every chosen
    step is done or queued, 2 for a mistake in the recipe, a damaged artifact or a run directory in use, else the exit
    code of the rank that failed.
    """
    environment.prepare()
    try:
        recipe = consents.load(path, overrides, _ranks(extra, sbatch), trusting=trusting)
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
            return _launch_all(recipe, steps, launches)
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
) -> int:
    """Checks the recipe, prints what would run, and forecasts what it takes. Returns 2 for a mistake in it.

    `budget` names a machine to plan for in the place of this one, such as `8xh100`.
    """
    environment.prepare()
    try:
        recipe = consents.load(path, overrides, _ranks(extra, sbatch), trusting=trusting, refusing=False)
        steps = recipe.select(only, start)
        planned_for = machines.budget(budget) if budget else None
        launched_on: Callable[[Step], Launch | None] = functools.partial(_launched_on, extra, sbatch)
        if planned_for:
            launched_on = functools.partial(outlook.launch, planned_for)
        unseen = preflight.check(recipe, steps, without_hub=True, launch=launched_on)
        auto = None if sbatch is None else slurm.CONFIG
        print(table(recipe, steps, extra, auto, verbose=verbose))
        if code := consents.section(recipe):
            print(code)
        if sbatch is not None:
            print("\n" + slurm.script(recipe, _launches(recipe, steps, extra, sbatch), sbatch, Path.cwd()))
        if seen := list(filter(preflight.is_open, steps)):
            print("\n" + outlook.text(recipe, seen, launched_on, planned_for))
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


def _ranks(extra: Sequence[str], sbatch: Sequence[str] | None) -> Ranks:
    words = Ranks(words=tuple(extra))
    return words if sbatch is None else Ranks(every=words.said or slurm.ranks(sbatch))


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


def _launch_all(recipe: Recipe, steps: Sequence[Step], launches: dict[str, list[str]]) -> int:
    """Launches the pending steps in order and stops at the first one that fails."""
    for position, step in enumerate(steps):
        print(f"[{recipe.steps.index(step) + 1}/{len(recipe.steps)}] {step.name} ({step.kind}) {step.fingerprint}")
        if step.name not in launches:
            print(f"    done: {step.output}")
            continue
        with locking.step_lock(step):
            if step.done:  # by now
                print(f"    done: {step.output}")
                continue
            print(f"    {commands.typed(launches[step.name])}", flush=True)
            code = launch(launches[step.name], recipe)
        if code in STOPPED:
            left = sum(not other.done for other in steps)
            print(f"stopped by {STOPPED[code]} with {left} steps left. The same command continues here")
            return code
        if code != 0 or not step.done:
            reason = f"signal {-code}" if code < 0 else f"exit code {code}"
            left = len(steps) - position - 1
            message = f"{step.name} failed ({reason}); {left} steps after it were not started"
            print(f"error: {message}. The same command continues here", file=sys.stderr)
            return code if code > 0 else 1
    views.record(recipe)
    environment.show(steps)
    environment.note(provenance.notes(recipe.steps))
    return 0


def handed_down(recipe: Recipe) -> dict[str, str]:
    """The environment variables by which the ranks of a launch know of their launcher, and come to its plan."""
    return {"TRIMTAB_LOCK": str(recipe.run.resolve()), **consents.handed_down(recipe), **recipe.ranks.handed_down()}


def launch(command: list[str], recipe: Recipe) -> int:
    """Runs one launch in a process group of its own, and leaves nothing running.

    The first SIGINT or SIGTERM is handed on, once, and the ranks have TRIMTAB_GRACE seconds to leave a checkpoint; a
    second one ends them at once. The exit code is then 128 and the first signal's number.
    """
    grace = float(os.environ.get("TRIMTAB_GRACE", GRACE))
    waits = str(math.ceil(grace) + 1)  # by whole seconds; ours end first, and say so
    variables = os.environ | handed_down(recipe) | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": waits}
    words = shlex.join(command)
    if "/cpu.yaml" in words and "--num_processes" not in words:
        # accelerate would choose so too, with a warning at each launch
        variables.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    received: list[int] = []
    quiet = [sys.executable, str(QUIET), *command[len(commands.ACCELERATE) :]]
    dying = functools.partial(orphans.die_with, os.getpid())
    child = subprocess.Popen(quiet, env=variables, start_new_session=True, preexec_fn=dying)

    def forward(number: int, frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            _kill(child)
            return
        print(
            f"\nasked to stop: waiting for a checkpoint, {grace:g} s at most (a second Ctrl-C ends it now)", flush=True
        )
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = _wait(child, received, grace)
    finally:
        _kill(child)  # workers that outlived their launcher
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 128 + received[0] if received else code


def _wait(child: subprocess.Popen, received: list[int], grace: float) -> int:
    """Waits for the child; once a signal was handed on, for `grace` seconds, then ends it."""
    asked = math.inf  # when
    while True:
        try:
            return child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if received:
                asked = min(asked, time.monotonic())
            if time.monotonic() - asked >= grace:
                print(f"no end within {grace:g} s (TRIMTAB_GRACE): ended without a checkpoint", flush=True)
                _kill(child)


def _kill(child: subprocess.Popen) -> None:
    """Ends the child and all that it has started, in whatever session."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(child.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
