"""The runner: one step in this process group, or all pending ones in their order."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any

from trimtab.pipelines.planning import preflight, provenance
from trimtab.pipelines.planning.errors import Interrupted, RecipeError, Waiting
from trimtab.pipelines.planning.recipe import Launch, Recipe, Step
from trimtab.pipelines.planning.references import strings
from trimtab.pipelines.recording import locks, reach, views
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
    making,
    orphans,
    overviews,
    searching,
    to_go,
)
from trimtab.pipelines.running.environment import LAUNCHED, MAIN, fail, say
from trimtab.pipelines.training import interrupts
from trimtab.rewards import RewardFailure


@exits.command
def train(
    path: str,
    overrides: Sequence[str] = (),
    only: str | Sequence[str] | None = None,
    *,
    rebuild: bool = False,
    trusting: bool = False,
) -> int:
    """Runs the pending steps of a recipe (of the stages `only`) in this process group; every rank calls it.

    With `rebuild`, also those whose artifacts are damaged, which are refused otherwise.

    Returns 0 when every step is done, 1 when a reward or anything else failed, 2 for a mistake in the recipe, also one
    that only a library knows, a damaged artifact or a run directory in use, 75 when a step waits for people, and 128
    and the signal's number after SIGINT (130) or SIGTERM (143), when what is finished is kept; after a training, a
    checkpoint of its last step.
    """
    environment.prepare()
    orphans.die_with_launcher()
    load = functools.partial(consents.load, path, overrides, trusting=trusting)
    if searching.is_search(path, overrides):
        return searching.run(load, lambda: _train(load, only, rebuild))
    return _train(load, only, rebuild)


def _train(load: Callable[[], Recipe], only: str | Sequence[str] | None, rebuild: bool) -> int:
    """Runs what is pending in the plan, as `train` does."""
    try:
        recipe = load()
        steps = recipe.select(only=only)
        pending = [step for step in steps if not step.done]
        provenance.require_whole(recipe, steps, rebuild=rebuild)
        if not LAUNCHED and "LOCAL_RANK" not in os.environ:  # of several ranks one compares, before each step
            provenance.require_content(recipe, pending)
        preflight.require_inputs(pending)
        preflight.check(recipe, pending, launch=_launched_on)
    except RecipeError as error:
        return fail(str(error))
    with contextlib.ExitStack() as stack:
        if MAIN and pending and not LAUNCHED:
            try:
                stack.enter_context(locking.lock(recipe.run, shlex.join(sys.argv)))
            except locking.Locked as error:
                return fail(str(error))
            except disk.Refused as error:
                fail(str(error))
                return failures.FAULT
        try:
            return _run_all(recipe, steps, pending)
        except RecipeError as error:
            return fail(str(recipe.document.locate(error)))
        except Interrupted as error:
            say(f"    {error}. The same command continues here")
            return 128 + error.number
        except Waiting as error:
            say(f"    {error}. The same command goes on here")
            return failures.WAITS
        except RewardFailure as error:  # on whichever rank
            print(f"error: {error}", file=sys.stderr, flush=True)
            return 1
        finally:
            if pending:
                environment.leave_process_group()


def _run_all(recipe: Recipe, steps: Sequence[Step], pending: Sequence[Step]) -> int:
    unseen = {step.name for step in pending if step.waiting}  # whose inputs could not be looked at yet
    if len(pending) > 1 and _is_sharded():
        say("FSDP and DeepSpeed keep state between the steps of one process: scripts/run.py is the way for them")
    if MAIN and not LAUNCHED:
        views.record(recipe)
        environment.note(filter(None, [reach.settle() if pending and recipe.wandb is not None else None]))
        if pending:
            say(to_go.begin(recipe, steps, _launched_on))
    timeout = max(map(grouping.patience, pending)) if pending else None
    several = claiming.is_one_of_several()
    if several:
        _join_process_group(timeout)
    for step in claiming.taken(pending) if several else pending if LAUNCHED else steps:
        if several or not LAUNCHED or step is not pending[0]:  # of which the launcher has told
            say(to_go.heading(recipe, step))
        if step.done:
            say(f"    done: {step.output}")
            continue
        if several:
            claiming.spread(step, recipe.steps)
        _keep_rewards_of([other for other in pending if other is not step])
        try:
            run(recipe, step, check=step.name in unseen, timeout=timeout)
        except interrupts.Stopped as stopped:
            raise Interrupted(f"{step.name} was interrupted, and keeps what it has finished", stopped.number) from None
        except (RecipeError, Interrupted, Waiting, RewardFailure, KeyboardInterrupt):
            raise
        except (Exception, SystemExit) as error:  # also the sys.exit of a reward, which says nothing of the step
            return failures.report(error, recipe, step)
        preflight.check_readers(recipe, [step], pending, _launched_on)
    if not LAUNCHED:
        if MAIN:
            views.record(recipe)
            if pending:
                cards.write(recipe)
                overviews.record(recipe)
        comparing.show(recipe, steps)
        environment.note(provenance.notes(recipe.steps))
    return 0


def run(recipe: Recipe, step: Step, *, check: bool, timeout: timedelta | None) -> None:
    """One step, unless another process has made it by now. Called by every rank.

    `check` looks at the inputs first: those that the steps before have made since the preflight. `timeout` is how long
    ranks wait for each other.
    """
    distributed = _join_process_group(timeout)
    environment.spare_libraries()
    with contextlib.nullcontext() if LAUNCHED else locking.step_lock(step, locks.of_main):
        if locks.of_main(lambda: step.done):  # by now, since another process has made it
            say(f"    done: {step.output}")
            return
        making.make(recipe, step, distributed, check=check)


def _keep_rewards_of(steps: Sequence[Step]) -> None:
    """Lets the reward models that steps to come ask stay in memory, where they are small."""
    from trimtab.rewards import _checkpoint

    options = (strings(step.options) for step in steps if not step.done)
    _checkpoint.keep(set(chain.from_iterable(options)))


def _join_process_group(timeout: timedelta | None) -> Any:
    """The one state of the process group, with what the libraries have to be told before it is made."""
    import torch
    import transformers
    from accelerate import PartialState

    from trimtab.pipelines.trainers.seams.engines import prepare_cpu_engines, sharding

    transformers.utils.logging.disable_progress_bar()  # of loading and saving weights; the trainer's stays
    on_cpu = not torch.accelerator.is_available()
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or it warns that it has not found another one
        from trimtab.pipelines.trainers.seams.trl import use_lean_head_on_cpu

        use_lean_head_on_cpu()
    prepare_cpu_engines()
    environment.be_plain_where_alone()
    # without `cpu` the ranks of a machine without GPUs would not know each other
    return PartialState(cpu=on_cpu and not sharding(), timeout=timeout)


def _launched_on(step: Step) -> Launch | None:
    """The launch that this process belongs to; None where a launcher of ours has looked at it already."""
    import torch

    if LAUNCHED:
        return None
    return Launch(int(os.environ.get("WORLD_SIZE", "1")), not torch.accelerator.is_available())


def _is_sharded() -> bool:
    from trimtab.pipelines.trainers.seams.engines import (
        sharding,  # imports torch, which a finished recipe does not need
    )

    return sharding() is not None
