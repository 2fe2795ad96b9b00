"""Several launches make the steps of a recipe at once: each takes the most urgent one whose inputs are done.

A step is taken by its lock in the store, which the operating system drops when its holder dies, so nothing else has to
know of the others: a step that another recipe's launch makes is left to that, too.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator, Mapping, Sequence

from trimtab.pipelines.planning import ranks
from trimtab.pipelines.planning.recipe import Step
from trimtab.pipelines.recording import locks
from trimtab.pipelines.running import locking

POLL = 0.5  # seconds between two looks of one who finds nothing to do
MARK = "TRIMTAB_JOBS"  # of how many launches a process is one, as their launcher says
THREADS = "OMP_NUM_THREADS"
VISIBLE = "CUDA_VISIBLE_DEVICES"


def is_one_of_several() -> bool:
    """Whether this process shares the steps that it was given with other launches."""
    return MARK in os.environ


def shares(jobs: int, width: int) -> list[dict[str, str]]:
    """The environment of each of several launches: `width` accelerators, or its threads where there are none.

    Launches that outnumber the accelerators share them.
    """
    if not width:
        threads = os.environ.get(THREADS) or str(max(1, (os.cpu_count() or 1) // jobs))
        return [{MARK: str(jobs), THREADS: threads}] * jobs
    every = ranks.devices()
    names = os.environ.get(VISIBLE, ",".join(map(str, range(every)))).split(",")
    starts = [job * width % every for job in range(jobs)]
    return [{MARK: str(jobs), VISIBLE: ",".join(names[start : start + width])} for start in starts]


def spread(step: Step, steps: Sequence[Step]) -> None:
    """Gives a step beside which no other of the plan can be made the threads of all launches, where they have a CPU.

    What decides is the plan and not what is done of it, so that a step is always made with the same number of threads.
    """
    import torch

    if not torch.accelerator.is_available():
        threads, jobs = int(os.environ[THREADS]), int(os.environ[MARK])
        torch.set_num_threads(threads * jobs if is_alone(step, steps) else threads)


def is_alone(step: Step, steps: Sequence[Step]) -> bool:
    """Whether each other step has to be done before this one, or waits for it."""
    before = {step.name}
    for other in reversed(steps):  # every step comes after its inputs
        if other.name in before:
            before.update(source.name for source in other.inputs)
    behind = {step.name}
    for other in steps:
        if any(source.name in behind for source in other.inputs):
            behind.add(other.name)
    return all(other.name in before | behind for other in steps)


def by_urgency(steps: Sequence[Step]) -> list[Step]:
    """Those first on which the longest chain of others waits; equal ones in the order of the recipe."""
    lengths = chains(steps, {step.name: 1 for step in steps})
    return sorted(steps, key=lambda step: -lengths[step.name])


def chains(steps: Sequence[Step], weights: Mapping[str, float]) -> dict[str, float]:
    """How much the longest chain of steps weighs that begins with each, by name."""
    lengths = {step.name: weights[step.name] for step in steps}
    for step in reversed(steps):  # every step comes after its inputs
        for source in step.inputs:
            if source.name in lengths:
                lengths[source.name] = max(lengths[source.name], weights[source.name] + lengths[step.name])
    return lengths


def taken(steps: Sequence[Step]) -> Iterator[Step]:
    """The steps that this process group makes, each while it is held. Ends when all of them are done by someone."""
    holding: list[locks.Lock] = []
    urgent = by_urgency(steps)
    while (name := locks.of_main(functools.partial(_take, urgent, holding))) is not None:
        if not name:
            time.sleep(POLL)
            continue
        try:
            yield next(step for step in urgent if step.name == name)
        finally:
            while holding:
                holding.pop().release()


def _take(steps: Sequence[Step], holding: list[locks.Lock]) -> str | None:
    """The name of the step that was taken: "" where others have all that could be made, None where all are done."""
    pending = [step for step in steps if not step.done]
    for step in pending:
        lock = locking.lock_of(step)
        if step.waiting or lock.take():
            continue
        if step.done:  # by now
            lock.release()
            continue
        holding.append(lock)
        return step.name
    return "" if pending else None
