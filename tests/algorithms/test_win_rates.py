"""Win rates, their intervals and what is left at equal length: by hand, and of draws whose truth is known."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from trimtab.pipelines.algorithms import win_rates
from trimtab.pipelines.algorithms.statistics import wilson


def test_ties_count_as_half():
    assert win_rates.share([1.0, 0.0], [0.0]) == 0.75
    assert win_rates.share([0.0], [0.0]) == 0.5


def test_the_error_is_that_of_the_prompts_shares():
    """Shares of 3/4, 3/4 and 1/4, and as many independent trials as have their error: 8.75."""
    told = win_rates.as_they_are([[1, 0], [1, 1], [0, 0]], [[0, 0], [1, 0], [1, 0]])
    assert told["rate"] == pytest.approx(7 / 12)
    assert told["stderr"] == pytest.approx(1 / 6)
    assert (told["low"], told["high"]) == pytest.approx(wilson(7 / 12, 8.75))


def test_who_wins_everything_is_not_certain():
    told = win_rates.as_they_are([[1.0]] * 10, [[0.0]] * 10)
    assert (told["rate"], told["stderr"]) == (1.0, 0.0)
    assert (told["low"], told["high"]) == pytest.approx(wilson(1.0, 10))


def test_intervals_cover_the_truth_where_answers_of_a_prompt_are_alike():
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(600):
        of_prompt = rng.normal(size=(60, 1)) + rng.normal(scale=0.3, size=(60, 4))
        told = win_rates.as_they_are(of_prompt, np.zeros((60, 1)))
        covered.append(told["low"] <= 0.5 <= told["high"])
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def drawn(quality, by_length, seed=1, prompts=400, answers=3):
    """Scores and lengths of two policies whose wins have these coefficients; ours are longer by one deviation."""
    rng = np.random.default_rng(seed)
    ours, theirs = rng.normal(1.0, 1.0, (prompts, answers)), rng.normal(0.0, 1.0, (prompts, 1))
    difference = ours - theirs
    odds = quality + by_length * np.tanh(difference / difference.std())
    wins = rng.random(odds.shape) < 1 / (1 + np.exp(-odds))
    return wins.astype(float), np.full((prompts, 1), 0.5), ours, theirs


def test_what_is_won_by_length_alone_is_lost_at_equal_length():
    rows = drawn(quality=0.0, by_length=2.0)
    assert win_rates.as_they_are(*rows[:2])["low"] > 0.6
    told = win_rates.at_equal_length(*rows)
    assert told["low"] < 0.5 < told["high"]


def test_what_length_has_no_part_in_is_kept():
    rows = drawn(quality=1.0, by_length=0.0)
    told = win_rates.at_equal_length(*rows)
    assert told["low"] < 1 / (1 + math.exp(-1.0)) < told["high"]
    assert told["rate"] == pytest.approx(win_rates.as_they_are(*rows[:2])["rate"], abs=0.03)


def test_the_coefficients_are_those_of_the_likelihood():
    ours, theirs, our_lengths, their_lengths = drawn(quality=0.3, by_length=-1.0, prompts=50)
    difference = (our_lengths - their_lengths).ravel()
    length, won = np.tanh(difference / difference.std()), (np.sign(ours - theirs).ravel() + 1) / 2

    def loss(coefficients):
        odds = coefficients[0] + coefficients[1] * length
        likelihood = won * np.logaddexp(0, -odds) + (1 - won) * np.logaddexp(0, odds)
        return likelihood.sum() / 3 + win_rates.PRIOR / 2 * (coefficients**2).sum()

    best = minimize(loss, np.zeros(2), tol=1e-12).x
    told = win_rates.at_equal_length(ours, theirs, our_lengths, their_lengths)
    assert told["rate"] == pytest.approx(1 / (1 + math.exp(-best[0])), abs=1e-6)


def test_errors_at_equal_length_are_over_prompts():
    """Four equal answers of a prompt say no more than one of them."""
    rows = drawn(quality=0.2, by_length=1.0, answers=1, prompts=100)
    once, again = (win_rates.at_equal_length(*(np.repeat(part, count, 1) for part in rows)) for count in (1, 4))
    assert again == pytest.approx(once)


def test_policies_of_equal_lengths_and_of_one_prompt_have_a_rate():
    assert win_rates.at_equal_length([[1.0]], [[0.0]], [[5]], [[5]])["rate"] > 0.9
    told = win_rates.at_equal_length([[1.0], [0.0]], [[0.0], [1.0]], [[5], [5]], [[5], [5]])
    assert told["rate"] == pytest.approx(0.5)
