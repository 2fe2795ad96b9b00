"""Consecutive small steps that are launched alike share one launch, which costs as much as a small step does."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import takewhile
from typing import Any

from trimtab.pipelines.forecasting import machines, outlook
from trimtab.pipelines.forecasting.forecast import Forecast
from trimtab.pipelines.forecasting.setting import Engine
from trimtab.pipelines.planning import commands
from trimtab.pipelines.planning.recipe import Launch, Step

LONG = 600.0  # forecast seconds of a step beside which its launch costs nothing that counts
SHARE = 0.25  # of a rank's memory: a step that needs more gets it to itself


def keys(
    steps: Sequence[Step],
    words: Mapping[str, Sequence[str]],
    launched_on: Callable[[Step], Launch | None],
    jobs: int = 1,
) -> dict[str, Hashable]:
    """What has to be equal for two steps to share a launch, by the names of those that may share one.

    `words` are the launches of the pending steps by name.
    """
    pending = [step for step in steps if step.name in words]
    if len(pending) < 2:
        return {}
    launches = {step.name: launched_on(step) or Launch(1, on_cpu=True) for step in pending}
    return outlook.Outlook(pending, launches, machines.at_hand(), shares(words, launched_on, jobs)).keys


def shares(
    words: Mapping[str, Sequence[str]], launched_on: Callable[[Step], Launch | None], jobs: int = 1
) -> outlook.Shares:
    """What says which steps share a launch; `words` and `launched_on` are as for `keys`.

    A step shares none that is not among the words, is forecast to be large or long, of which nothing can be forecast,
    or whose engine keeps something for the rest of its process: FSDP, DeepSpeed, vLLM. Several `jobs` divide what they
    share, so there a step may be large and long.
    """

    def key(step: Step, forecast: Forecast, engine: Engine) -> Hashable | None:
        if step.name not in words:
            return None
        start = commands.without_stage(words[step.name])
        if (jobs == 1 and not _is_small(forecast)) or _keeps_state(step, start, engine):
            return None
        launch = launched_on(step)
        return (*start, patience(step) if launch and launch.processes > 1 else None)

    return key


def group(steps: Sequence[Step], keys: Mapping[str, Hashable]) -> list[Step]:
    """The first of some steps, and the pending ones after it that share its launch."""
    first, *others = steps
    if first.name not in keys:
        return [first]
    pending = (step for step in others if not step.done)
    return [first, *takewhile(lambda step: keys.get(step.name) == keys[first.name], pending)]


def patience(step: Step) -> timedelta:
    """How long ranks wait for each other: as `train.ddp_timeout` says, or a day where they sample or score.

    There, one rank may have much more to do than another, and a collective that waits for it is no error.
    """
    if "train" not in step.options:
        return timedelta(days=1)
    return timedelta(seconds=step.options["train"].get("ddp_timeout", 1800))


def _is_small(forecast: Forecast) -> bool:
    return forecast.seconds <= LONG and forecast.peak <= SHARE * forecast.room


def _keeps_state(step: Step, words: Sequence[str], engine: Engine) -> bool:
    """Whether an engine is used that leaves something behind in its process."""
    said = any(name in word for word in words for name in ("fsdp", "deepspeed"))
    return said or engine != Engine() or any("vllm" in word for word in _words(step.options))


def _words(value: Any) -> Iterator[str]:
    """The keys and the strings of options, but for what is switched off or empty."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inside in value.items():
            if inside:
                yield str(key)
                yield from _words(inside)
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from _words(inside)
