"""How rewards are mixed, and what each setting of the multipliers does, on numbers worked out by hand."""

import math

import pytest

from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers, MultiplierSettings
from trimtab.pipelines.algorithms.objectives import Lagrangian

HARMLESS = {"harmless": Constraint(1.0)}


def multipliers(**settings):
    return Multipliers(HARMLESS, MultiplierSettings(momentum=0.0, max_grad_norm=100, **settings))


@pytest.mark.parametrize(("settings", "base", "weight"), [
    ({"initial": 0.2}, 0.8, 0.2),  # (N - s) and s
    ({"parametrization": "projected", "initial": 3.0}, 1.0, 3.0),
    ({"parametrization": "log", "initial": 3.0}, 0.25, 0.75),  # 1 / (1 + lambda) and lambda / (1 + lambda)
])  # fmt: skip
def test_a_reward_without_a_threshold_has_the_tasks_weight(settings, base, weight):
    """As in safe RLHF: helpful is maximised with minus the KL, harmless held at its threshold."""
    task, weights = Lagrangian({"helpful": 2.0}, multipliers(**settings)).weights()
    assert task == pytest.approx(base)
    assert weights == pytest.approx({"helpful": 2 * base, "harmless": weight})


def test_a_reward_of_the_task_with_a_threshold_has_both_weights():
    limited = {"helpful": Constraint(1.0, "at_most"), "brief": Constraint(0.0, "at_most")}
    mix = Lagrangian({"helpful": 2.0, "brief": 0.5}, Multipliers(limited, MultiplierSettings(initial=0.3)))
    task, weights = mix.weights()
    assert task == pytest.approx(1.4)
    assert weights == pytest.approx({"helpful": 2.8 - 0.3, "brief": 0.7 - 0.3})


@pytest.mark.parametrize(("mean", "value"), [(0.6, 0.5 + 2 * 0.4), (1.1, 0.5 - 2 * 0.1), (2.0, 0.0)])
def test_the_penalty_adds_the_violation_and_leaves_no_weight_below_zero(mean, value):
    held = multipliers(parametrization="projected", initial=0.5, penalty=2.0)
    held.observe({"harmless": mean})
    assert held.values() == {"harmless": pytest.approx(value)}


def test_the_penalty_of_an_equality_may_be_negative():
    settings = MultiplierSettings(parametrization="projected", initial=0.5, penalty=2.0)
    held = Multipliers({"harmless": Constraint(1.0, "equal")}, settings)
    held.observe({"harmless": 2.0})
    assert held.values() == {"harmless": pytest.approx(0.5 - 2.0)}


def test_a_proportional_term_counts_for_the_moment_alone():
    held = multipliers(parametrization="projected", initial=0.5, proportional=2.0, learning_rate=0.1)
    held.observe({"harmless": 0.6})
    assert held.values() == {"harmless": pytest.approx(0.5 + 2 * 0.4)}
    held.step()
    assert held.state.raw == {"harmless": pytest.approx(0.5 + 0.1 * 0.4)}


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_the_descent_begins_after_the_delay(delay):
    held = multipliers(parametrization="projected", initial=0.5, delay=delay)
    held.observe({"harmless": 0.0})
    raws = []
    for _ in range(delay + 2):
        held.step()
        raws.append(held.state.raw["harmless"])
    assert raws == pytest.approx([0.5] * delay + [0.6, 0.7])


def test_after_settle_steps_multipliers_stand_at_the_mean_over_their_second_half():
    held = multipliers(parametrization="projected", initial=0.5, settle=4, penalty=3.0)
    held.observe({"harmless": 0.0})
    seen = []
    for _ in range(6):  # to 0.6, 0.7, 0.8, 0.9, each with the penalty for the moment
        held.step()
        seen.append(held.values()["harmless"])
    assert seen == pytest.approx([3.6, 3.7, 3.8, *[(0.8 + 0.9) / 2] * 3])
    assert held.state.steps == 6


@pytest.mark.parametrize("settings", [{}, {"update": "augmented", "penalty": 0.1}])
def test_multipliers_move_once_for_every_so_many_steps_of_the_policy(settings):
    keys = {"parametrization": "projected", "initial": 0.5, "every": 3, "delay": 2} | settings
    held = Multipliers(
        HARMLESS, MultiplierSettings(**keys | ({} if settings else {"momentum": 0, "max_grad_norm": 9}))
    )
    held.observe({"harmless": 0.0})
    raws = []
    for _ in range(8):
        held.step()
        raws.append(held.state.raw["harmless"])
    assert raws == pytest.approx([0.5] * 4 + [0.6] * 3 + [0.7])


@pytest.mark.parametrize(("kind", "mean", "raw"), [
    ("at_least", 0.25, 0.5 + 2 * 0.75), ("at_least", 3.0, 0.0), ("at_most", 1.25, 0.5 + 2 * 0.25),
    ("equal", 3.0, -3.5),
])  # fmt: skip
def test_the_augmented_step_is_as_long_as_the_penalty_says(kind, mean, raw):
    settings = MultiplierSettings(parametrization="projected", update="augmented", initial=0.5, penalty=2.0)
    held = Multipliers({"harmless": Constraint(1.0, kind)}, settings)
    held.observe({"harmless": mean})
    held.step()
    assert held.state.raw == {"harmless": pytest.approx(raw)}


def test_smoothed_means_are_mostly_the_past():
    held = multipliers(smoothing=0.9)
    held.observe({"harmless": 1.0})
    held.observe({"harmless": 2.0})
    held.observe({"harmless": math.nan})
    assert held.state.means == {"harmless": pytest.approx(0.9 * 1.0 + 0.1 * 2.0)}


def test_a_cap_holds_on_both_sides():
    settings = MultiplierSettings(parametrization="projected", initial=0.5, cap=0.8, penalty=10.0)
    for mean, value in ((0.0, 0.8), (2.0, -0.8)):
        held = Multipliers({"harmless": Constraint(1.0, "equal")}, settings)
        held.observe({"harmless": mean})
        assert held.values() == {"harmless": value}
