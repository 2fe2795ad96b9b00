"""Curation on tabular models: the theorems of Ferbach et al. 2024, and the frequencies of its choices.

https://arxiv.org/abs/2407.09499
"""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from trimtab.pipelines.algorithms import curation, tabular

ROUNDING = 1e-12  # relative to the rewards' scale, which is about 1


def instances(seed, count=400, sizes=((2, 2), (3, 3), (4, 3), (5, 4))):
    """(p, r, K) of `count` random models for each number of answers n and of completions K; some rewards are tied."""
    rng = np.random.default_rng(seed)
    for n, k in sizes:
        p = rng.dirichlet(np.full(n, 0.5), count) + 1e-6
        reward = rng.uniform(0.1, 3, (count, 1)) * rng.standard_normal((count, n))
        reward[::4, 0] = reward[::4, 1]
        yield p / p.sum(-1, keepdims=True), reward, k


def mean(p, values):
    return (p * values).sum(-1)


def test_c1_every_round_adds_the_guaranteed_increment_and_no_reward_is_lost():
    checked = 0
    for p, reward, k in instances(0):
        w = np.exp(reward)
        for _ in range(3):
            new = curation.retrain(p, reward, k)
            slack = mean(new, w) - mean(p, w) - curation.guaranteed(p, reward, k)
            assert (slack >= -ROUNDING * w.max(-1)).all()
            assert (mean(new, reward) >= mean(p, reward) - ROUNDING * np.abs(reward).max(-1)).all()
            p, checked = new, checked + len(p)
    assert checked >= 1000


def test_c2_the_limit_is_the_first_model_on_the_best_answers():
    p = first = np.array([0.05, 0.15, 0.3, 0.5])
    reward = np.array([1.0, 1.0, 0.2, -1.0])
    limit = np.array([0.25, 0.75, 0.0, 0.0])
    for k in (2, 4):
        p = first
        for _ in range(100):
            p = curation.retrain(p, reward, k)
        np.testing.assert_allclose(p, limit, atol=1e-6)


def test_c3_with_real_data_the_gain_stays_and_the_distance_is_bounded():
    checked = bounded = 0
    for reference, reward, k in instances(1):
        w = np.exp(reward)
        for ratio in (0.9 / (k - 1), 0.3 / (k - 1), 2.0):
            p, bound = reference, curation.divergence_bound(k, ratio)
            gain = curation.guaranteed(reference, reward, k, ratio)
            for _ in range(6):
                p = curation.retrain(p, reward, k, ratio, reference)
                assert (mean(p, w) - mean(reference, w) >= gain - ROUNDING * w.max(-1)).all()
                assert (tabular.kl(np.log(p), np.log(reference)) <= bound + ROUNDING).all()
                checked, bounded = checked + len(p), bounded + len(p) * math.isfinite(bound)
    assert min(checked, bounded) >= 1000
    assert math.isinf(curation.divergence_bound(3, 0.5))


def test_c4_of_two_the_advantage_is_twice_the_chance_to_win():
    for p, reward, _ in instances(2):
        beats = 1 / (1 + np.exp(reward[..., None, :] - reward[..., :, None]))
        expected = 2 * (p[..., None, :] * beats).sum(-1)
        np.testing.assert_allclose(curation.advantage(p, reward, 2), expected, atol=1e-12, rtol=0)


def test_the_advantage_averages_one_and_tends_to_the_tilted_model():
    for p, reward, k in instances(3, count=100):
        h = curation.advantage(p, reward, k)
        np.testing.assert_allclose(mean(p, h), 1, atol=1e-12)
        assert (h > 0).all()
        assert (h <= k).all()
    p, reward = np.array([0.3, 0.7]), np.array([1.0, 0.0])
    tilted = np.exp(reward) / mean(p, np.exp(reward))
    far = [np.abs(curation.advantage(p, reward, k) - tilted).max() for k in (2, 6, 12)]
    assert far[0] > far[1] > far[2]


def test_the_increment_of_a_sample_is_the_theorems():
    """A prompt's K scores are a model of their own: expected is exact, and never below guaranteed."""
    rng = np.random.default_rng(4)
    for _ in range(1000):
        scores = rng.normal(0, 2, rng.integers(1, 7))
        w, expected, guaranteed = curation.increments(scores, 0.7)
        assert expected == pytest.approx(w @ curation.probabilities(scores, 0.7) - w.mean(), abs=1e-12)
        assert expected >= guaranteed - 1e-15


def chi_square(found, expected):
    """The statistic in units of its standard deviation away from its mean: below 4 if the frequencies are right."""
    degrees = len(expected) - 1
    statistic = sum((found[key] - count) ** 2 / count for key, count in expected.items())
    return (statistic - degrees) / math.sqrt(2 * degrees)


SCORES = [0.3, -1.0, 1.2, 0.3]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("keep", [1, 2, 3])
def test_choices_have_plackett_luce_frequencies(keep, temperature):
    draws = 20_000
    found = Counter(tuple(curation.choose(SCORES, keep, temperature, f"{keep}-{n}")) for n in range(draws))
    weights = np.exp(np.array(SCORES) / temperature)
    expected = {}
    for order in itertools.permutations(range(len(SCORES)), keep):
        left = [weights.sum() - weights[list(order[:at])].sum() for at in range(keep)]
        expected[order] = draws * math.prod(weights[i] / rest for i, rest in zip(order, left, strict=True))
        assert math.prod(curation.turns(SCORES, order, temperature)) * draws == pytest.approx(expected[order])
    assert set(found) <= set(expected)
    assert chi_square(found, expected) < 4
    if keep == 1:
        np.testing.assert_allclose(curation.probabilities(SCORES, temperature), weights / weights.sum(), rtol=1e-12)


def test_the_limits_of_the_temperature():
    best = Counter(curation.choose([1.0, 5.0, 5.0, 0.0], 1, 0.0, str(n))[0] for n in range(2000))
    assert chi_square(best, {1: 1000, 2: 1000}) < 4
    assert curation.choose([1.0, 5.0, 4.9, 7.0], 3, 0.0, "any") == [3, 1, 2]
    assert curation.choose([1.0, 5.0, 4.9, 7.0], 3, 1e-320, "any") == [3, 1, 2]
    anyone = Counter(tuple(curation.choose([0.0, 50.0, 1.0], 2, math.inf, str(n))) for n in range(3000))
    assert chi_square(anyone, dict.fromkeys(itertools.permutations(range(3), 2), 500)) < 4
    assert curation.probabilities([1.0, 5.0, 5.0], 0.0).tolist() == [0, 0.5, 0.5]
    assert curation.entropy(curation.probabilities([1.0, 9.0, 3.0], math.inf)) == pytest.approx(math.log(3))
    assert curation.entropy(curation.probabilities([1.0, 9.0], 0.0)) == 0


def test_a_choice_depends_on_its_seed_only():
    first = curation.choose(SCORES, 2, 1.0, "42-0-7")
    assert (
        first == curation.choose(SCORES, 2, 1.0, "42-0-7") == curation.choose([s + 5 for s in SCORES], 2, 1, "42-0-7")
    )
    assert len({tuple(curation.choose(SCORES, 2, 1.0, f"42-0-{n}")) for n in range(50)}) > 5


@pytest.mark.parametrize(
    ("scores", "keep", "temperature"),
    [
        ([], 1, 1.0),
        ([1.0], 2, 1.0),
        ([math.nan], 1, 1.0),
        ([math.inf, 0.0], 1, 1.0),
        ([1.0], 1, -1),
        ([1], 1, math.nan),
    ],
)
def test_what_cannot_be_chosen_from(scores, keep, temperature):
    with pytest.raises(ValueError, match=r"expected finite|cannot keep|at least 0"):
        curation.choose(scores, keep, temperature, "seed")
