"""Choosing among samples, against closed forms and against all sets of them."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from trimtab.pipelines.algorithms import best_of

SCORES = [0.3, -1.0, 2.0, 2.0, 0.3, 5.0]
VALUES = [1.0, 0.0, 1.0, 0.0, 0.0, 0.5]


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_the_chosen_sample_is_that_of_all_sets(n):
    """Ties are broken by chance, so each of the best counts alike."""
    expected = []
    for members in combinations(range(6), n):
        best = max(SCORES[i] for i in members)
        tied = [VALUES[i] for i in members if SCORES[i] == best]
        expected.append(sum(tied) / len(tied))
    assert best_of.chosen(SCORES, VALUES, n) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize(
    ("total", "right", "gap", "known"), [(8, 2, 1.0, 0.6129), (8, 4, 0.5, 0.6947), (8, 1, 2, 0.7110)]
)
def test_reward_models_choose_as_often_right_as_the_integral_says(total, right, gap, known):
    """Scores N(gap, 1) of right samples and N(0, 1) of wrong ones."""
    density = lambda z: right * norm.pdf(z - gap) * norm.cdf(z - gap) ** (right - 1) * norm.cdf(z) ** (total - right)  # noqa: E731
    assert quad(density, -10, 12)[0] == pytest.approx(known, abs=1e-4)
    values = [1.0] * right + [0.0] * (total - right)
    draws = np.random.default_rng(0).normal(size=(8000, total)) + gap * np.array(values)
    rate = np.mean([best_of.chosen(scores, values, total) for scores in draws])
    assert rate == pytest.approx(known, abs=3 * math.sqrt(known * (1 - known) / 8000))


def test_of_one_sample_the_choice_is_the_mean():
    assert best_of.chosen(SCORES, VALUES, 1) == pytest.approx(np.mean(VALUES))
    assert best_of.passing([1, 0, 0, 1], 1) == 0.5
    assert best_of.voted(["a", "b", None, "a"], [1, 0, 0, 1], 1, "") == 0.5


def test_pass_at_n_is_the_share_of_sets_with_a_right_one():
    correct = [1, 0, 0, 1, 0]
    for n in range(1, 6):
        sets = list(combinations(correct, n))
        assert best_of.passing(correct, n) == pytest.approx(np.mean([any(members) for members in sets]))


def test_a_majority_wins_and_ties_are_chance():
    answers = ["72", "72", "7", None]
    assert best_of.voted(answers, [1, 1, 0, 0], 4, "") == 1.0
    assert best_of.voted(["72", "7"], [1, 0], 2, "") == 0.5
    assert best_of.voted([None, None], [0, 0], 2, "") == 0.0


def test_a_vote_of_many_samples_is_that_of_the_multinomial():
    """3 of 5 with right samples at 60 %: P(majority of Bin(5, 0.6)), from 400 samples."""
    answers = ["right"] * 240 + ["wrong"] * 160
    values = [1.0] * 240 + [0.0] * 160
    expected = sum(math.comb(5, k) * 0.6**k * 0.4 ** (5 - k) for k in (3, 4, 5))
    rates = [best_of.voted(answers, values, 5, str(seed)) for seed in range(10)]
    assert np.mean(rates) == pytest.approx(expected, abs=3 * math.sqrt(expected * (1 - expected) / 2000))
    assert best_of.voted(answers, values, 5, "1") == best_of.voted(answers, values, 5, "1")


def test_a_sample_is_right_from_a_half_on():
    assert best_of.passing([0.5, 0.49, 0.7, 0.0], 1) == 0.5
    assert best_of.passing([0.5, 0.49, 0.7, 0.0], 2) == pytest.approx(5 / 6)
