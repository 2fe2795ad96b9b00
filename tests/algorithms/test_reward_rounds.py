"""A reward on the completions of policies: accuracy against gold, best of n, and length, by hand."""

import math

import pytest

from trimtab.pipelines.algorithms.reward_rounds import of_policy

PROMPTS = [0, 0, 0, 0, 1, 1, 1, 1]
GOLD = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
LENGTHS = [4, 1, 2, 3, 5, 6, 7, 8]


def test_pairs_of_a_prompt_with_different_gold_are_ordered_alike_or_not():
    numbers = of_policy([3, 1, 3, 2, 9, 9, 9, 9], LENGTHS, PROMPTS, GOLD)
    # of the four pairs of prompt 0, (3, 1), (2, 1) are ordered alike, (3, 3) is a tie and (2, 3) is not
    assert numbers["accuracy"]["mean"] == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    assert (numbers["n"], numbers["unscored"]) == (8, 0)
    assert numbers["mean"] == pytest.approx(45 / 8)


def test_the_best_of_n_is_what_choosing_gives():
    numbers = of_policy([3, 1, 4, 2, 0, 0, 0, 0], LENGTHS, PROMPTS, GOLD)
    by_n = {row["n"]: row for row in numbers["best_of"]}
    assert list(by_n) == [1, 2, 4]
    assert by_n[1]["gold"]["mean"] == pytest.approx((0.5 + 0) / 2)
    # best of two of prompt 0: 4 in three of six sets (wrong), 3 in two (right), 2 in one (right)
    assert by_n[2]["gold"]["mean"] == pytest.approx(0.5 * 3 / 6)
    assert by_n[4]["gold"]["mean"] == 0
    assert by_n[4]["score"]["mean"] == pytest.approx(4 / 2)


def test_length_is_a_correlation_within_prompts():
    longer = of_policy([float(length) for length in LENGTHS], LENGTHS, PROMPTS)
    assert longer["length"] == pytest.approx(1)
    assert "accuracy" not in longer
    between = [0.0 if prompt == 0 else 1.0 for prompt in PROMPTS]  # which says nothing of answers to one prompt
    assert math.isnan(of_policy(between, LENGTHS, PROMPTS)["length"])


def test_what_has_no_score_is_left_out_and_counted():
    numbers = of_policy([3, None, 3, 2, 9, 9, 9, 9], LENGTHS, PROMPTS, [1.0, 0.0, 0.0, None, 0.0, 0.0, 0.0, 0.0])
    assert (numbers["n"], numbers["unscored"]) == (6, 2)
    assert numbers["best_of"][-1]["gold"]["mean"] == 0  # of prompt 1 alone, which has all of its four
    assert of_policy([None], [1], [0]) == {"n": 0, "unscored": 1}
