"""What a round is measured by against the first one, by hand."""

import math

import pytest

from trimtab.pipelines.algorithms import drift


def test_win_rates_against_the_first_round():
    """On the prompt's own completions where both rounds have it, over all prompts where they differ; a tie is half."""
    first = ["p", "p", "q", "q"], [0, 2, 10, None]
    scores = [2, 5, None]
    assert drift.win_shares(["p", "q", "q"], scores, *first) == [0.75, 0.0, None]
    unscored = first[0], [0, 2, None, None]  # of q there is nothing to beat
    assert drift.win_shares(["p", "q", "q"], scores, *unscored) == [0.75, None, None]
    assert drift.win_shares(["p", "q", "new"], scores, *first) == [0.5, pytest.approx(2 / 3), None]


def test_diversity_alone_and_against_the_first_round():
    numbers = drift.diversity(["a b c", "a b d", "a b"], [0, 0, 1], ["a b c e"])
    assert numbers["distinct_2"] == pytest.approx(3 / 5)
    assert numbers["similarity"] == pytest.approx(1 / 3)
    assert numbers["distinct_2/ratio"] == pytest.approx(3 / 5)
    assert numbers["vocabulary"] == pytest.approx(3 / 4)
    assert drift.diversity(["a b"], [0], None) == {"distinct_2": 1.0}
    assert drift.diversity(["a b"], [0], ["a"])["vocabulary"] == 1.0
    assert drift.diversity(["a b"], [0], [""])["vocabulary"] == 0.0


def test_what_is_promised_needs_a_round_before():
    scores = [[0.0, 1.0], [1.0, 2.0]]
    numbers = drift.promised(scores, None, 1.0, 0.5)
    assert numbers["exp_reward/log"] == pytest.approx(math.log((1 + 2 * math.e + math.e**2) / 4))
    assert numbers["kl_bound"] == pytest.approx(-math.log(1 - 0.5))
    assert "exp_reward/log_promised" not in numbers
    assert drift.promised(scores, scores, 1.0, math.inf)["exp_reward/log_promised"] > numbers["exp_reward/log"]
    assert "kl_bound" not in drift.promised(scores, None, 1.0, math.inf)
