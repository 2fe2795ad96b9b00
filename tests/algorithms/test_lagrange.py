"""Multipliers on a tabular policy: the saddle point, slack, what bounded ones can represent, and their state.

Moskovitz et al. 2023 (https://arxiv.org/abs/2310.04373). Policies are exact: for multipliers lambda the best one is
pi_0 exp(sum lambda_i r_i) / Z, and the dual function log Z - lambda . theta has one minimum.
"""

import json
import math

import numpy as np
import pytest

from trimtab.pipelines.algorithms import multiplier_warnings, tabular
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
    assert "softplus" in multiplier_warnings.warnings(bounded)["b/limit"]
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


@pytest.mark.parametrize("options", [{}, {"anchoring": 3, "every": 4, "delay": 5}, {"settle": 60}])
def test_the_state_is_exact_and_belongs_to_its_constraints(options):
    settings = MultiplierSettings(smoothing=0.5, proportional=0.1, **options)
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


def test_swings_are_reported():
    multipliers = Multipliers({"r": Constraint(1.0)}, MultiplierSettings(parametrization="projected"))
    for at in range(WINDOW):
        multipliers.observe({"r": 1 + (-1) ** (at // 5) * (0.5 + at / WINDOW)})
        multipliers.step()
    assert "proportional" in multiplier_warnings.warnings(multipliers)["r/oscillates"]


@pytest.fixture(scope="module")
def cycling():
    """A bandit without a KL, whose best policy mixes two answers: (pi_0, task, reward, threshold, multiplier).

    Of the answers 0 and 1, which are best for the multiplier 1.5, the threshold takes half and half.
    """
    rng = np.random.default_rng(0)
    task, reward = rng.standard_normal((2, ANSWERS)) - 3
    task[:2], reward[:2] = (1.0, -0.5), (-1.0, 0.0)
    return np.full(ANSWERS, 1 / ANSWERS), task, reward, -0.5, 1.5


def violations(cycling, steps, **settings):
    """The violation after every step of descent, and the multipliers."""
    start, task, reward, threshold, _ = cycling
    settings = {"parametrization": "projected", "learning_rate": 0.1, "momentum": 0, "max_grad_norm": 10, **settings}
    if settings.get("update") == "augmented":
        settings = {key: settings[key] for key in ("parametrization", "update", "penalty", "every") if key in settings}
    multipliers = Multipliers({"r": Constraint(threshold)}, MultiplierSettings(**settings))
    iterates = tabular.primal_dual_iterates(
        np.log(start), {"r": reward}, multipliers, steps, 0.3, task=task, strength=0.0
    )
    return np.array([threshold - np.exp(log_policy) @ reward for log_policy in iterates]), multipliers


def test_plain_descent_cycles_where_a_penalty_does_not(cycling):
    plain, _ = violations(cycling, 4000)
    assert np.abs(plain[-500:]).max() > 0.2, "as far off as ever"
    assert ((plain[-500:-1] * plain[-499:]) < 0).any(), "to both sides"
    for settings in ({"update": "augmented", "penalty": 1.0, "every": 10}, {"penalty": 1.0}, {"proportional": 3.0}):
        calm, multipliers = violations(cycling, 4000, **settings)
        assert np.abs(calm[-500:]).max() < 1e-9
        assert multipliers.state.raw["r"] == pytest.approx(cycling[-1], abs=1e-9)


def test_anchored_descent_ends_the_cycles_with_a_violation_that_falls_as_one_over_the_steps(cycling):
    """Where it stands still, rate v = c / n (lambda - lambda_0): the pull is what the violation makes up for.

    As long as the pull is above the rate at which cycles of plain descent grow: about 30 / 7000 here.
    """
    anchored, multipliers = violations(cycling, 5000, anchoring=30)
    lam = multipliers.state.raw["r"]
    assert lam == pytest.approx(cycling[-1], abs=2e-3)
    steps = np.arange(3001, 5001)
    assert anchored[3000:] * steps / 30 == pytest.approx((lam - 0.5) / 0.1, rel=0.03)


@pytest.mark.parametrize("anchoring", [1, 5])
def test_an_anchored_step_is_halperns(anchoring):
    """Of a violation v that stays, lambda_n = lambda_0 + n rate v / (1 + c); with 1 it is Halpern's 1 / (n + 1)."""
    settings = MultiplierSettings(
        parametrization="projected", learning_rate=0.2, momentum=0, max_grad_norm=100, anchoring=anchoring, initial=2
    )
    multipliers = Multipliers({"r": Constraint(1.0)}, settings)
    for n in range(1, 8):
        multipliers.observe({"r": 0.25})
        multipliers.step()
        assert multipliers.state.raw["r"] == pytest.approx(2 + n * 0.2 * 0.75 / (1 + anchoring), abs=1e-12)


def test_the_augmented_step_is_the_proximal_point_of_the_dual(bandit):
    """lambda_{k+1} = argmin log Z - lambda theta + (lambda - lambda_k)^2 / (2 rho) over lambda >= 0, by bisection."""
    start, rewards = bandit
    theta = means(bandit, tilted(bandit, (1.2, 0)))["a"]
    settings = MultiplierSettings(parametrization="projected", update="augmented", penalty=2.0, every=400)
    multipliers = Multipliers({"a": Constraint(theta)}, settings)
    iterates = tabular.primal_dual_iterates(np.log(start), {"a": rewards[0]}, multipliers, 2000, 0.3)
    expected = 0.5
    for step, _ in enumerate(iterates, start=1):
        if step % 400 == 0:
            low, high = 0.0, 50.0
            for _ in range(80):
                middle = (low + high) / 2
                slope = means(bandit, tilted(bandit, (middle, 0)))["a"] - theta + (middle - expected) / 2.0
                low, high = (low, middle) if slope > 0 else (middle, high)
            expected = low
            assert multipliers.state.raw["a"] == pytest.approx(expected, abs=1e-9)
    assert expected == pytest.approx(1.2, abs=0.05)


def test_settled_multipliers_are_their_mean_and_the_policy_follows(bandit):
    """By then the policy is tilted by the mean exactly, however the multipliers swung before."""
    start, rewards = bandit
    theta = means(bandit, tilted(bandit, (1.2, 0)))["a"]
    kept = {"parametrization": "projected", "learning_rate": 3.0, "momentum": 0, "max_grad_norm": 10}
    swinging = Multipliers({"a": Constraint(theta)}, MultiplierSettings(**kept))
    iterates = tabular.primal_dual_iterates(np.log(start), {"a": rewards[0]}, swinging, 200, 0.3)
    raws = [swinging.state.raw["a"] for _ in iterates]
    settled = Multipliers({"a": Constraint(theta)}, MultiplierSettings(**kept, settle=200))
    policy = tabular.primal_dual(np.log(start), {"a": rewards[0]}, settled, 600, 0.3)
    mean = sum(raws[100:]) / 100
    assert settled.values()["a"] == pytest.approx(mean, abs=1e-12)
    assert np.exp(policy) == pytest.approx(tilted(bandit, (mean, 0)), abs=1e-12)
    assert abs(mean - 1.2) < 0.5 * max(abs(raw - 1.2) for raw in raws[100:])


@pytest.mark.parametrize(("change", "message"), [
    ({"momentum": 1.0}, "momentum must be"),
    ({"learning_rate": 0}, "learning_rate must be above 0"),
    ({"initial": 1.0}, "below 1"),
    ({"cap": 3.0}, "unbounded"),
    ({"every": 0}, "every must be at least 1"),
    ({"settle": 1}, "settle must be at least 2"),
    ({"anchoring": -1}, "anchoring must be at least 0"),
    ({"update": "augmented"}, "with a `penalty` above 0"),
    ({"update": "augmented", "parametrization": "projected", "penalty": 1, "momentum": 0}, "momentum has no"),
])  # fmt: skip
def test_settings_that_cannot_be_right(change, message):
    with pytest.raises(ValueError, match=message):
        MultiplierSettings(**change)
