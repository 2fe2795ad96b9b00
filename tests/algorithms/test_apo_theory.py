"""Accelerated preference optimisation on tabular policies: the paper's theorems, and where they need a correction.

He, Yuan and Gu 2024 (https://arxiv.org/abs/2410.06293). `benchmarks/apo_tabular.py` prints the same at length.
"""

import math

import numpy as np
import pytest
import torch

from trimtab.pipelines.algorithms import momentum, tabular

ALPHAS = (0.0, 0.3, 0.6, 0.9)
ROUNDS = 8
THRESHOLD = 1 / (1 + math.exp(1 / math.e))
SLACK, TINY = 1 + 1e-9, 1e-300  # two actions meet the TV bound up to rounding, and float64 loses digits near zero


def instances(seed, count=2000, actions=(2, 3, 8)):
    """(log pi_ref, reward, b) of `count` random bandits for each number of actions."""
    rng = np.random.default_rng(seed)
    for n in actions:
        log_reference = tabular.normalise(rng.uniform(0, 4, (count, 1)) * rng.standard_normal((count, n)))
        yield log_reference, rng.standard_normal((count, n)), 10 ** rng.uniform(-1, 1, (count, 1))


def constant(reward):
    return lambda t, log_policy: reward


def with_constant_reward(alpha):
    """(log p*, gamma, gap, TV to pi*, its bound) of every round (axis 0) of random bandits, by number of actions."""
    for log_reference, reward, strength in instances(1):
        found = tabular.rounds(log_reference, constant(reward), strength, alpha, ROUNDS)[1:]
        gamma = np.array([[momentum.exponent(alpha, t)] for t in range(1, ROUNDS + 1)]) / strength[:, 0]
        best = np.take_along_axis(log_reference, reward.argmax(-1)[:, None], -1)[:, 0]
        off = tabular.total_variation(found, tabular.optimum(reward))
        off_bound = tabular.total_variation_bound(log_reference, reward, gamma)
        yield best, gamma, tabular.gap(found, reward), off, off_bound


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a1_closed_form(alpha):
    """Theorem 4.1, for rewards that change every round."""
    for log_reference, reward, strength in instances(0, count=300):
        rewards = reward + np.random.default_rng(1).standard_normal((ROUNDS, *reward.shape))
        found = tabular.rounds(log_reference, lambda t, _, r=rewards: r[t], strength, alpha, ROUNDS)
        for t in range(1, ROUNDS + 1):
            expected = tabular.closed_form(log_reference, rewards[:t], strength, alpha)
            np.testing.assert_allclose(found[t], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a1_total_exponent_of_a_constant_reward(alpha):
    """gamma_t b; the paper prints alpha^(t+1) in one of two places, alpha^(t+2) is right."""
    for t in range(ROUNDS):
        expected = (t + 1) / (1 - alpha) - alpha / (1 - alpha) ** 2 + alpha ** (t + 2) / (1 - alpha) ** 2
        assert momentum.exponent(alpha, t + 1) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a2_bounds_hold(alpha):
    for best, gamma, gap, off, off_bound in with_constant_reward(alpha):
        assert (gap <= SLACK * tabular.gap_bound(best, gamma)).all()
        assert (off <= SLACK * off_bound + TINY).all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a3_the_published_constant_fails(alpha):
    """Many instances violate it, all of them with p* > 0.409."""
    for best, gamma, gap, _, _ in with_constant_reward(alpha):
        violated = (gap > SLACK * tabular.published_gap_bound(best, gamma)).any(0)
        assert violated.mean() > 0.05
        assert np.exp(best[violated]).min() > THRESHOLD
        assert violated[np.exp(best) > 0.5].all()  # the constant is negative
        assert violated[np.exp(best) < 0.5].any()


def test_a3_two_actions_break_it_exactly_above_the_threshold():
    gamma = np.linspace(0.01, 20, 20000)  # with a margin of 1
    for best, fails in ((THRESHOLD - 1e-4, False), (THRESHOLD + 1e-4, True)):
        log_reference, reward = np.log(np.tile([best, 1 - best], (len(gamma), 1))), np.array([1.0, 0.0])
        found = tabular.rounds(log_reference, constant(reward), 1 / gamma[:, None], 0.0, 1)[1]
        bound = tabular.published_gap_bound(np.log(best), gamma)
        assert (tabular.gap(found, reward) > bound).any() == fails


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a4_momentum_is_a_smaller_b(alpha):
    """With exact rewards APO(alpha, b) is iterative DPO with b / ratio: the control that any gain must beat."""
    for log_reference, reward, _ in instances(2, count=200):
        ours = tabular.rounds(log_reference, constant(reward), 1.0, alpha, 3)[-1]
        same = tabular.rounds(log_reference, constant(reward), 1 / momentum.ratio(alpha, 3), 0.0, 3)[-1]
        np.testing.assert_allclose(ours, same, rtol=1e-12, atol=1e-12)


def test_a5_sppo_is_accelerated_by_a_constant_factor():
    """Response 0 wins 3 : 1 against its closest rival, eta = 0.4: TV falls by exp(-0.1 / (1 - alpha)) a round."""
    preferences = np.array(
        [[0.5, 0.75, 0.85, 0.95], [0.25, 0.5, 0.3, 0.8], [0.15, 0.7, 0.5, 0.4], [0.05, 0.2, 0.6, 0.5]]
    )
    start, best = tabular.normalise(np.zeros(4)), tabular.optimum(np.array([1.0, 0.0, 0.0, 0.0]))
    for alpha in ALPHAS:
        found = tabular.rounds(start, lambda _, now: tabular.win_probability(preferences, now), 2.5, alpha, 400)
        curve = np.log(tabular.total_variation(found, best))[150:]
        slope = np.polyfit(np.arange(len(curve)), curve, 1)[0]
        assert slope * (1 - alpha) == pytest.approx(-0.1, rel=0.03)


def test_a6_momentum_repels_more_from_the_equilibrium_of_rock_paper_scissors():
    preferences = 0.5 + 0.4 * np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    uniform = tabular.normalise(np.zeros(3))
    start = tabular.normalise(np.array([1e-7, 0, 0]))
    radii = []
    for alpha in (0.0, 0.1, 0.3, 0.6, 0.9):
        radii.append(tabular.spectral_radius(preferences, 2.0, alpha, uniform))
        found = tabular.rounds(start, lambda _, now: tabular.win_probability(preferences, now), 2.0, alpha, 30)
        size = np.linalg.norm(found - uniform, axis=-1)
        assert (size[-1] / size[-11]) ** 0.1 == pytest.approx(radii[-1], abs=0.003)  # the linear theory is the map's
    assert radii == sorted(set(radii))
    assert radii[0] > 1
    np.testing.assert_allclose(np.array(radii) - 1, [0.0066, 0.0084, 0.0166, 0.0718, 0.219], atol=5e-4)


def minimise(loss, *shape):
    """The minimiser of `loss` over a float64 tensor, from zeros."""
    logits = torch.zeros(*shape, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=1000, tolerance_grad=1e-13, tolerance_change=0,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def closure():
        optimizer.zero_grad()
        value = loss(logits)
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach()


def test_a7_the_sppo_loss_learns_multiplicative_weights():
    """E_{y ~ pi_t} (log pi(y)/pi_t(y) - eta (P(y > pi_t) - 1/2))^2, minimised over free log-ratios; and over policies,
    with log Z in place of its customary approximation eta / 2."""
    rng = np.random.default_rng(0)
    wins = rng.uniform(size=(6, 6))
    preferences, eta = wins / (wins + wins.T), 0.7
    log_policy = tabular.normalise(rng.standard_normal(6))
    won = tabular.win_probability(preferences, log_policy)
    expected = tabular.proximal(log_policy, won, 1 / eta)
    weights, now, target = torch.tensor(np.exp(log_policy)), torch.tensor(log_policy), torch.tensor(eta * won)

    ratios = minimise(lambda ratio: (weights * (ratio - (target - eta / 2)) ** 2).sum(), 6).numpy()
    np.testing.assert_allclose(ratios, eta * (won - 0.5), atol=1e-8)
    np.testing.assert_allclose(tabular.normalise(log_policy + ratios), expected, atol=1e-8)

    log_z = (weights * target.exp()).sum().log()
    change = minimise(lambda x: (weights * ((now + x).log_softmax(0) - now - target + log_z) ** 2).sum(), 6).numpy()
    np.testing.assert_allclose(tabular.normalise(log_policy + change), expected, atol=1e-8)


def test_a_dpo_round_on_exact_preferences_is_the_exact_round():
    rng = np.random.default_rng(0)
    log_policy, reward = tabular.normalise(rng.standard_normal(5)), rng.standard_normal(5)
    values = torch.tensor(reward)
    wins = torch.sigmoid(values[:, None] - values[None, :])  # Bradley-Terry, all ordered pairs

    def loss(log_ratio):
        implicit = 0.5 * log_ratio
        return -(wins * torch.nn.functional.logsigmoid(implicit[:, None] - implicit[None, :])).mean()

    learned = tabular.normalise(log_policy + minimise(loss, 5).numpy())
    np.testing.assert_allclose(learned, tabular.proximal(log_policy, reward, 0.5), atol=1e-6)


def test_distances():
    p, q = np.log([0.5, 0.3, 0.2]), np.log([0.2, 0.3, 0.5])
    assert tabular.total_variation(p, q) == pytest.approx(0.3)
    assert tabular.kl(p, q) == pytest.approx(0.3 * math.log(2.5))
    reward = np.array([1.0, 1.0, 0.0])
    best = tabular.optimum(reward)
    np.testing.assert_allclose(np.exp(best), [0.5, 0.5, 0])
    assert tabular.kl(best, p) == pytest.approx(0.5 * math.log(0.25 / 0.15))
    assert (tabular.gap(best, reward), tabular.gap(p, reward)) == (0, pytest.approx(0.2))
