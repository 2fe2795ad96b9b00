"""What is said of multipliers that cannot grow or that swing, on violations given by hand."""

import math

import pytest

from trimtab.pipelines.algorithms import multiplier_warnings
from trimtab.pipelines.algorithms.lagrange import WINDOW, Constraint, Multipliers, MultiplierSettings

HALF = WINDOW // 2


def after(violations, kind="at_least", **settings):
    """The kinds of trouble with a multiplier whose reward, with the threshold 2, was so far off in the last steps."""
    multipliers = Multipliers({"r": Constraint(2.0, kind)}, MultiplierSettings(**settings))
    multipliers.state.history = [{"r": violation} for violation in violations]
    multipliers.observe({"r": 2.0 - violations[-1]})
    return sorted(name.partition("/")[2] for name in multiplier_warnings.warnings(multipliers))


def swings(early, late, period=5):
    """A reward on both sides of its threshold by turns, with a step near to it in each half."""
    signs = [(-1) ** (step // period) for step in range(WINDOW)]
    sizes = [early] * (HALF - 1) + [0.001] + [late] * (HALF - 1) + [0.001]
    return [sign * size for sign, size in zip(signs, sizes, strict=True)]


@pytest.mark.parametrize(("violations", "said"), [
    (swings(0.2, 0.3), ["oscillates"]),
    (swings(0.3, 0.2), []),  # it calms down
    (swings(0.3, 0.3), []),  # no more than before
    (swings(0.05, 0.09), []),  # within 5 % of the threshold
    (swings(0.05, 0.11), ["oscillates"]),
    (swings(0.2, 0.3, period=11), []),  # 3 crossings
    (swings(0.2, 0.3, period=9), ["oscillates"]),  # 4
    (swings(0.2, 0.3, period=2), ["oscillates"]),  # 19
    (swings(0.2, 0.3, period=1), []),  # noise from step to step
    (swings(0.2, 0.3)[1:], []),  # too few steps to say
])  # fmt: skip
def test_a_reward_that_swings_more_and_more(violations, said):
    assert after(violations) == said


@pytest.mark.parametrize(("settings", "said"), [
    ({"initial": 0.97}, ["limit"]),
    ({"initial": 0.9}, []),
    ({"parametrization": "projected", "initial": 2.9, "cap": 3.0}, ["saturated"]),
    ({"parametrization": "projected", "initial": 2.8, "cap": 3.0}, []),
    ({"parametrization": "projected", "initial": 2.9}, []),
])  # fmt: skip
def test_a_multiplier_that_cannot_grow_while_its_constraint_is_violated(settings, said):
    assert after([0.5] * WINDOW, **settings) == said
    assert after([0.5] * (WINDOW - 1) + [-0.1], **settings) == []  # once it was not
    assert after([-0.5] * WINDOW, **settings) == []


@pytest.mark.parametrize(("raw", "said"), [(-2.0, ["limit"]), (-1.0, [])])
def test_a_multiplier_of_an_equality_has_two_ends(raw, said):
    constraints = {"r": Constraint(2.0, "equal"), "other": Constraint(0.0, "equal")}
    multipliers = Multipliers(constraints)
    multipliers.state.raw["r"] = raw
    assert math.isclose(multipliers.values()["r"], math.tanh(raw))
    multipliers.state.history = [{"r": -0.5, "other": 0.0}] * WINDOW
    found = multiplier_warnings.warnings(multipliers)
    assert [name.partition("/")[2] for name in found] == said
