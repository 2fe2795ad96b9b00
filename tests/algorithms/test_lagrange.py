"""Multipliers on a tabular policy: the saddle point, slack, what bounded ones can represent, and their state.

Moskovitz et al. 2023 (https://arxiv.org/abs/2310.04373). Policies are exact: for multipliers lambda the best one is
pi_0 exp(sum lambda_i r_i) / Z, and the dual function log Z - lambda . theta has one minimum.
"""

import json
import math

import numpy as np
import pytest

from trimtab.pipelines.algorithms import tabular
from trimtab.pipelines.algorithms.lagrange import WINDOW, Constraint, Multipliers, MultiplierSettings
from trimtab.pipelines.algorithms.objectives import Fixed, Lagrangian, Saturating

ANSWERS = 12


@pytest.fixture(scope="module")
def bandit():
    """pi_0 (12,) and two rewards (2, 12)."""
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(ANSWERS)), rng.standard_normal((2, ANSWERS))


def tilted(bandit, lam):
    """The policy pi_0 exp(lambda . r) / Z, (12,)."""
    return np.exp(tabular.tilted(np.log(bandit[0]), bandit[1], lam))


def means(bandit, policy):
    return dict(zip("ab", bandit[1] @ policy, strict=True))


def descend(bandit, multipliers, steps, rate):
    rewards = dict(zip("ab", bandit[1], strict=True))
    return np.exp(tabular.primal_dual(np.log(bandit[0]), rewards, multipliers, steps, rate))


def solve(bandit, kinds, lam, **settings):
    """Descent to the thresholds that the multipliers `lam` would hold; (multipliers, final means, thresholds)."""
    target = means(bandit, tilted(bandit, lam))
    constraints = {name: Constraint(target[name], kind) for name, kind in zip("ab", kinds, strict=True)}
    settings = {"learning_rate": 0.5, "max_grad_norm": 10, **settings}
    multipliers = Multipliers(constraints, MultiplierSettings(**settings))
    policy = descend(bandit, multipliers, 20_000, rate=0.3)
    return multipliers, means(bandit, policy), target


@pytest.mark.parametrize("form", ["bounded", "softplus", "projected", "log"])
@pytest.mark.parametrize("kind", ["at_least", "equal"])
def test_descent_ends_at_the_saddle_point(bandit, form, kind):
    """B1: thresholds are met and the multipliers are those of the dual's minimum."""
    if form == "log" and kind == "equal":
        with pytest.raises(ValueError, match="never negative"):
            Multipliers({"a": Constraint(0.0, "equal")}, MultiplierSettings(parametrization="log"))
        return
    lam = (0.8, 0.6)
    multipliers, found, target = solve(bandit, (kind, kind), lam, parametrization=form)
    assert found == pytest.approx(target, abs=1e-6)
    assert list(multipliers.effective().values()) == pytest.approx(lam, abs=1e-6)


def test_an_upper_limit_needs_a_negative_weight(bandit):
    multipliers, found, target = solve(bandit, ("at_least", "at_most"), (0.5, -0.4), parametrization="softplus")
    assert found == pytest.approx(target, abs=1e-6)
    assert list(multipliers.effective().values()) == pytest.approx((0.5, 0.4), abs=1e-6)
    assert multipliers.weights()[1]["b"] < 0


@pytest.mark.parametrize(("form", "rate"), [("softplus", 2), ("projected", 0.5)])
def test_a_slack_constraint_has_no_multiplier(bandit, form, rate):
    """B2: the second threshold is below what the first one's policy has anyway, by complementary slackness."""
    alone = means(bandit, tilted(bandit, (0.8, 0)))
    constraints = {"a": Constraint(alone["a"]), "b": Constraint(alone["b"] - 0.2)}
    settings = MultiplierSettings(parametrization=form, learning_rate=rate, max_grad_norm=10)
    multipliers = Multipliers(constraints, settings)
    found = means(bandit, descend(bandit, multipliers, 40_000, rate=0.3))
    lam = multipliers.effective()
    limit = 1e-6 if form == "projected" else 1e-3  # softplus reaches 0 as 1 / steps
    assert lam["b"] < limit
    assert lam["a"] == pytest.approx(0.8, abs=2 * limit)
    assert found["b"] > constraints["b"].threshold + 0.1


@pytest.mark.parametrize("kind", ["at_least", "equal"])
def test_bounded_multipliers_stall_outside_of_what_they_can_represent(bandit, kind):
    """B3: lambda_i < (1 + sum lambda) / N for bounded ones; unbounded ones get there."""
    lam = (0.3, 2.5)
    assert lam[1] > (1 + sum(lam)) / 2
    bounded, found, target = solve(bandit, (kind, kind), lam)
    assert found["b"] < target["b"] - 1e-3
    effective = bounded.effective()
    assert all(abs(each) < (1 + sum(effective.values())) / 2 for each in effective.values())
    assert "b/limit" in bounded.warnings()
    assert "softplus" in bounded.warnings()["b/limit"]
    _, found, target = solve(bandit, (kind, kind), lam, parametrization="softplus")
    assert found == pytest.approx(target, abs=1e-6)


def test_the_saturating_penalty_of_a_binary_reward_is_affine():
    """B4: -(r - theta)^2 on r in {0, 1} has the slope -(1 - 2 theta), so below 1/2 it is against the reward."""
    theta = 0.48
    penalty = [-((r - theta) ** 2) for r in (0, 1)]
    assert penalty[1] - penalty[0] == pytest.approx(-(1 - 2 * theta))
    assert penalty[1] < penalty[0]
    objective = Saturating({"r": 1.5}, {"r": Constraint(theta)})
    for mean in (0.1, 0.48, 0.9):  # the gradient of -a (v - theta)^2 by v, at the mean that there is
        objective.observe({"r": mean})
        assert objective.weights() == (1.0, {"r": pytest.approx(-2 * 1.5 * (mean - theta))})
    objective.observe({"r": math.nan})
    assert objective.weights()[1]["r"] == pytest.approx(-2 * 1.5 * (0.9 - theta))


@pytest.mark.parametrize("kind", ["at_least", "at_most"])
@pytest.mark.parametrize("form", ["bounded", "softplus", "projected", "log"])
def test_a_multiplier_grows_while_its_constraint_is_violated(form, kind):
    settings = MultiplierSettings(parametrization=form, momentum=0, max_grad_norm=100)
    for mean, rises in ((0.0, kind == "at_least"), (1.0, kind == "at_most")):
        multipliers = Multipliers({"r": Constraint(0.5, kind)}, settings)
        before = multipliers.values()["r"]
        multipliers.observe({"r": mean})
        multipliers.step()
        assert (multipliers.values()["r"] > before) == rises


def test_a_step_is_sgd_with_momentum_and_a_clipped_gradient():
    """Against the formulas: s' (theta - mean), clipped as a vector, v = m v + g, raw += rate v."""
    settings = MultiplierSettings(learning_rate=0.2, momentum=0.5, max_grad_norm=0.1)
    multipliers = Multipliers({"a": Constraint(1.0), "b": Constraint(2.0)}, settings)
    raw, velocity = np.zeros(2), np.zeros(2)
    for seen in ((0.5, -3.0), (0.9, 1.0), (math.nan, 2.5)):
        multipliers.observe(dict(zip("ab", seen, strict=True)))
        multipliers.step()
        used = np.array([0.9 if math.isnan(seen[0]) else seen[0], seen[1]])
        s = 1 / (1 + np.exp(-raw))
        gradient = s * (1 - s) * (np.array([1.0, 2.0]) - used)
        gradient *= min(1, 0.1 / np.linalg.norm(gradient))
        velocity = 0.5 * velocity + gradient
        raw = raw + 0.2 * velocity
    assert list(multipliers.state.raw.values()) == pytest.approx(raw, abs=1e-12)


def test_mixing_is_the_papers():
    """Equation 4.4: (N - sum s) A_0 + sum s_i A_i; All-PPO's task is the sum, and its constraints are subtracted."""
    multipliers = Multipliers({"a": Constraint(0.0, "at_most"), "b": Constraint(0.0, "at_most")})
    s = multipliers.values()
    task, weights = Lagrangian({"a": 0.5, "b": 1.0}, multipliers).weights()
    assert task == 2 - sum(s.values())
    assert weights == {"a": task * 0.5 - s["a"], "b": task * 1.0 - s["b"]}
    assert Fixed({"a": 0.3}).weights() == (1.0, {"a": 0.3})


def test_the_state_is_exact_and_belongs_to_its_constraints(bandit):
    settings = MultiplierSettings(averaging=0.9, smoothing=0.5, proportional=0.1)
    constraints = {"a": Constraint(0.3), "b": Constraint(-0.1, "equal")}
    rng = np.random.default_rng(1)
    seen = [dict(zip("ab", rng.standard_normal(2), strict=True)) for _ in range(2 * WINDOW)]

    def run(multipliers, part):
        for each in part:
            multipliers.observe(each)
            multipliers.step()
        return multipliers

    whole = run(Multipliers(constraints, settings), seen)
    first = run(Multipliers(constraints, settings), seen[:50])
    second = Multipliers(constraints, settings)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert run(second, seen[50:]).state_dict() == whole.state_dict()
    other = Multipliers({"a": Constraint(0.4), "b": Constraint(-0.1, "equal")}, settings)
    with pytest.raises(ValueError, match="not of"):
        other.load_state_dict(first.state_dict())


def test_averaging_calms_and_swings_are_reported():
    multipliers = Multipliers({"r": Constraint(1.0)}, MultiplierSettings(parametrization="projected"))
    for at in range(WINDOW):
        multipliers.observe({"r": 1 + (-1) ** (at // 5) * (0.5 + at / WINDOW)})
        multipliers.step()
    assert "averaging" in multipliers.warnings()["r/oscillates"]


@pytest.mark.parametrize(("change", "message"), [
    ({"momentum": 1.0}, "momentum must be"),
    ({"learning_rate": 0}, "learning_rate must be above 0"),
    ({"initial": 1.0}, "below 1"),
    ({"cap": 3.0}, "unbounded"),
])  # fmt: skip
def test_settings_that_cannot_be_right(change, message):
    with pytest.raises(ValueError, match=message):
        MultiplierSettings(**change)
