"""What is wrong with multipliers that are learned: at the end of their range, or swinging, over the last steps."""

from __future__ import annotations

from itertools import pairwise

from trimtab.pipelines.algorithms.lagrange import WINDOW, Multipliers

NEAR = 0.05  # of a limit, or of a threshold


def warnings(multipliers: Multipliers) -> dict[str, str]:
    """What is wrong with a run, by a name for each kind of trouble; looked at over the last steps."""
    if len(multipliers.state.history) < WINDOW:
        return {}
    warnings: dict[str, str] = {}
    for name in multipliers.constraints:
        violations = [row[name] for row in multipliers.state.history]
        warnings |= _at_its_end(multipliers, name, violations) | _swinging(multipliers, name, violations)
    return warnings


def _at_its_end(multipliers: Multipliers, name: str, violations: list[float]) -> dict[str, str]:
    """A warning where the multiplier cannot grow any more and its constraint is still violated."""
    equal, settings = multipliers.constraints[name].kind == "equal", multipliers.settings
    violated = all(v > 0 for v in violations) or (equal and all(v < 0 for v in violations))
    if not violated:
        return {}
    value, effective = multipliers.values()[name], multipliers.effective()
    if settings.parametrization == "bounded":
        if abs(value) > 1 - NEAR:  # as near as lambda is to its own limit
            limit = (1 + sum(effective.values())) / len(multipliers.constraints)
            message = (
                f"{name}: the multiplier is at the end of what bounded ones can represent, lambda "
                f"{effective[name]:.3g} of {limit:.3g}, and the reward is still {abs(violations[-1]):.3g} off "
                "its threshold. Move the threshold, or set `multipliers: {parametrization: softplus}`"
            )
            return {f"{name}/limit": message}
    elif settings.cap is not None and abs(value) > (1 - NEAR) * settings.cap:
        return {f"{name}/saturated": f"{name}: the multiplier is at its cap, {settings.cap:g}"}
    return {}


def _swinging(multipliers: Multipliers, name: str, violations: list[float]) -> dict[str, str]:
    """A warning where the reward goes from one side of its threshold to the other, by more and more."""
    crossings = sum(a * b < 0 for a, b in pairwise(violations))
    half = WINDOW // 2
    early, late = (max(map(abs, part)) for part in (violations[:half], violations[half:]))
    if not (4 <= crossings <= half and late > early and late > NEAR * abs(multipliers.constraints[name].threshold)):
        return {}
    message = (
        f"{name}: the reward swings about its threshold by {late:.3g}, and no less than before: lower "
        "`multipliers.learning_rate`, or set `proportional`, or `penalty` with another `parametrization`"
    )
    return {f"{name}/oscillates": message}
