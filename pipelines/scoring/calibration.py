"""Thresholds in calibrated units: `threshold: {z: 0.5}` is half a standard deviation above the mean of a reward.

Of a reward whose scores are in standard deviations already (`normalize: true`), that is 0.5. `{z: 0.5, of: $score}` is
relative to the completions that a step has scored with the reward of that name, such as the start policy's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from trimtab.pipelines.data import loading
from trimtab.pipelines.data.forms import SCORED, Data
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.reward_blocks import cut

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class _Scored:
    of: Annotated[Data, SCORED]


def threshold(name: str, block: Mapping[str, Any], step: Step) -> float | None:
    """The threshold of a step's reward, in the unit of its scores; None where it has none.

    NaN while what it is relative to is still to be made. Raises RecipeError where nothing says what a `z` is.
    """
    value = block.get("threshold")
    if not isinstance(value, Mapping):
        return value
    place = (*step.path, "rewards", name, "threshold")
    scored = value.get("of")
    if scored is not None:
        mean, deviation = _of_rows(name, block, step, (*place, "of"))
        return mean + value["z"] * deviation
    if not block.get("normalize"):
        raise RecipeError(
            "`z` is relative to a calibration: name completions that were scored with the reward, `{z: ..., of: "
            "$score}`, or give a reward model `normalize: true`",
            place,
        )
    return value["z"]


def _of_rows(name: str, block: Mapping[str, Any], step: Step, place: tuple[str, ...]) -> tuple[float, float]:
    """Mean and standard deviation of the scores that a step above has given with the same reward."""
    scored = block["threshold"]["of"]
    maker = step.maker(scored)
    if maker is None:
        raise RecipeError(f"expected a step above that scores, such as $score, got {scored!r}", place)
    rewards = maker.options.get("rewards", {})
    if name not in rewards:
        raise RecipeError(f"{maker.name} has no reward {name!r}{suggest(name, rewards)}", place)
    if cut(rewards[name]).reward != cut(block, constrained=True).reward:
        raise RecipeError(
            f"{maker.name} scores {name!r} with other keys, and so in another unit: give both the same",
            place,
        )
    if step.pending(scored):
        return math.nan, math.nan
    data = schema.instance(_Scored, schema.check(_Scored, {"of": scored}, place)).of
    scores = [row[name] for row in loading.load(data, place)["scores"] if row[name] is not None]
    if len(set(scores)) < 2:
        raise RecipeError(f"the {len(scores)} scores there are all equal: they have no deviation", place)
    return float(np.mean(scores)), float(np.std(scores))
