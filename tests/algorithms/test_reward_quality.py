"""How good a reward is, on scores of which the truth is known."""

import math

import numpy as np
import pytest

from trimtab.pipelines.algorithms import reward_quality


def drawn(scale, count=20_000):
    """Gaps of a reward whose pairs are labelled by sigmoid(gap), stretched by `scale`."""
    chance = np.random.default_rng(0)
    differences = chance.normal(0, 2, count)
    labelled = chance.random(count) < 1 / (1 + np.exp(-differences))
    return scale * np.where(labelled, differences, -differences)


def test_accuracy_counts_ties_as_one_half():
    numbers = reward_quality.accuracy([1.0, -1.0, 0.0, 2.0])
    assert numbers["mean"] == 0.625
    assert numbers["ties"] == 0.25
    assert numbers["stderr"] == pytest.approx(np.std([1, 0, 0.5, 1], ddof=1) / 2)
    assert numbers["low"] < 0.625 < numbers["high"]
    assert math.isnan(reward_quality.accuracy([])["mean"])


def test_a_calibrated_reward_is_as_often_right_as_it_says():
    numbers = reward_quality.calibration(drawn(1.0))
    assert numbers["ece"] < 0.015
    assert numbers["scale"] == pytest.approx(1, abs=0.05)
    assert [count for *_, count in numbers["bins"]] == [2000] * 10


def test_an_overconfident_reward_is_told_by_how_much():
    numbers = reward_quality.calibration(drawn(4.0))
    assert numbers["ece"] > 0.1
    assert numbers["scale"] == pytest.approx(0.25, abs=0.02)


def test_a_reward_that_knows_nothing_has_the_nll_of_ignorance():
    assert reward_quality.calibration([0.0] * 8)["nll"] == pytest.approx(math.log(2))


def test_a_reward_of_length_alone_is_at_chance_with_length_held():
    longer = np.array([3.0] * 70 + [-2.0] * 30 + [0.0] * 10)
    numbers = reward_quality.length_bias(longer, longer)
    assert numbers == {
        "prefers_longer": 1.0,
        "longer_is_better": 0.7,
        "better_longer": 1.0,
        "better_shorter": 0.0,
        "length_held": 0.5,
    }
    perfect = reward_quality.length_bias(np.ones(110), longer)
    assert perfect["prefers_longer"] == 0.7
    assert perfect["length_held"] == 1.0


def test_agreement_of_two_rewards():
    assert reward_quality.agreement([1, 2, -3, 0], [5, -1, -1, 1]) == (1 + 0 + 1 + 0.5) / 4
