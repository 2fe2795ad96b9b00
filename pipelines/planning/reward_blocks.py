"""A reward's block in a recipe: what of it is the reward's own, and what is said to whoever asks the reward."""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.pipelines.planning import numbers
from trimtab.pipelines.planning.errors import Mistakes, RecipeError, suggest
from trimtab.pipelines.planning.schema import check_reward, coerce

# what a failed completion means, and the share of all completions that may fail before the step stops anyway
POLICY = {"on_failure": typing.Literal["stop", "abstain", "skip_group"], "max_failures": float}
MAX_FAILURES = 0.05
# of a reward that is trained on: its weight in the task, its threshold and what that means
WEIGHT = {"weight": float}


@dataclass(kw_only=True)
class Calibrated:
    """A threshold of `z` standard deviations above a mean, that of `normalize` or of what a step has scored.

    `of` names a step above, whose completions have scores by the reward of that name.
    """

    z: float
    of: str | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.z):
            raise ValueError(f"`z` is a number of standard deviations, got {self.z}")


CONSTRAINT = {
    "threshold": typing.Annotated[float | Calibrated | None, numbers.threshold],
    "constraint": typing.Literal["at_least", "at_most", "equal"],
    **WEIGHT,
}


@dataclass(frozen=True)
class RewardParts:
    """A block cut apart: `reward` is what `schema.load` takes, the rest is for its caller."""

    reward: dict[str, Any]
    policy: dict[str, Any]
    constraint: dict[str, Any]


def cut(block: Mapping[str, Any], *, constrained: bool = False) -> RewardParts:
    """The parts of a checked block; `constrained` is whether its caller reads the keys of CONSTRAINT."""
    policy = {key: value for key, value in block.items() if key in POLICY}
    constraint = {key: value for key, value in block.items() if constrained and key in CONSTRAINT}
    reward = {key: value for key, value in block.items() if key not in policy and key not in constraint}
    return RewardParts(reward, policy, constraint)


def _checked(block: Any, path: Sequence[str], callers: Mapping[str, Any] = POLICY) -> dict[str, Any]:
    """The block with every key checked; `callers` are the keys that are not the reward's own, with their types."""
    if not isinstance(block, Mapping):
        return check_reward(block, path)
    checked, mistakes = {}, Mistakes()
    try:
        checked = check_reward({key: value for key, value in block.items() if key not in callers}, path)
    except RecipeError as error:
        for mistake in error.mistakes:
            mistakes.add(_perhaps_of_the_caller(mistake, callers))
    for key in [key for key in block if key in callers]:
        with mistakes.collected():
            checked[key] = coerce(block[key], callers[key], (*path, key))
    mistakes.raise_any()
    return checked


def _perhaps_of_the_caller(mistake: RecipeError, callers: Mapping[str, Any]) -> RecipeError:
    """The mistake, with the key of the caller's that an unknown key of the reward may have meant."""
    if not mistake.message.startswith("unknown key") or "did you" in mistake.message:
        return mistake
    return RecipeError(mistake.message + suggest(mistake.path[-1], callers), mistake.path)


# the types of a stage's field that holds a `{kind: ..., **options}` reward
RewardBlock = typing.Annotated[dict, _checked]
ConstrainedReward = typing.Annotated[dict, functools.partial(_checked, callers=POLICY | CONSTRAINT)]
WeightedReward = typing.Annotated[dict, functools.partial(_checked, callers=POLICY | WEIGHT)]
