"""A reward's block in a recipe: what of it is the reward's own, and what is said to whoever asks the reward."""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.pipelines.planning import numbers
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.schema import check_reward, coerce

# what a failed completion means, and the share of all completions that may fail before the step stops anyway
POLICY = {"on_failure": typing.Literal["stop", "abstain", "skip_group"], "max_failures": float}
MAX_FAILURES = 0.05
# of a reward that is trained on: its threshold, what that means, and its weight in the task
CONSTRAINT = {
    "threshold": typing.Annotated[float | None, numbers.threshold],
    "constraint": typing.Literal["at_least", "at_most", "equal"],
    "weight": float,
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
    said = {key: coerce(value, callers[key], (*path, key)) for key, value in block.items() if key in callers}
    rest = {key: value for key, value in block.items() if key not in callers}
    try:
        return {**check_reward(rest, path), **said}
    except RecipeError as error:  # perhaps a caller's key was meant
        meant = suggest(error.path[-1], callers) if error.message.startswith("unknown key") else ""
        if not meant or "did you" in error.message:
            raise
        raise RecipeError(error.message + meant, error.path) from None


# the types of a stage's field that holds a `{kind: ..., **options}` reward
RewardBlock = typing.Annotated[dict, _checked]
ConstrainedReward = typing.Annotated[dict, functools.partial(_checked, callers=POLICY | CONSTRAINT)]
