"""Agreement against the published examples, and what chance gives."""

import math
import random

import pytest

from trimtab.pipelines.algorithms import agreement, rankings

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", C: four observers, twelve units, nominal 0.743
OBSERVERS = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)


def ratings(*lines):
    return {
        f"rater {number}": {str(unit): value for unit, value in enumerate(line.split()) if value != "."}
        for number, line in enumerate(lines)
    }


def test_krippendorffs_own_example():
    assert agreement.krippendorff(ratings(*OBSERVERS)) == pytest.approx(0.743, abs=5e-4)


def test_cohens_kappa_of_a_table():
    # 20 both yes, 15 both no, 5 and 10 apart: 0.7 agreed, 0.5 by chance
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert agreement.cohen(*zip(*pairs, strict=True)) == pytest.approx(0.4)


def test_all_alike_is_perfect_and_one_category_says_nothing():
    same = ratings("1 2 1 2", "1 2 1 2", "1 2 1 2")
    assert agreement.krippendorff(same) == agreement.mean_cohen(same) == 1
    one = ratings("1 1 1", "1 1 1")
    assert agreement.krippendorff(one) is None
    assert agreement.mean_cohen(one) is None
    assert agreement.krippendorff(ratings("1 2 3")) is None
    assert agreement.cohen([], []) is None


def test_raters_who_toss_coins_agree_as_chance_does():
    rng = random.Random(0)
    lines = [" ".join(rng.choice("ab") for _ in range(4000)) for _ in range(3)]
    limit = 4 / math.sqrt(3 * 4000)
    assert abs(agreement.krippendorff(ratings(*lines))) < limit
    assert abs(agreement.mean_cohen(ratings(*lines))) < limit


def test_kappa_of_several_raters_is_weighted_by_what_they_share():
    some = ratings("1 2 1 2 . .", "1 2 1 2 1 2", ". . . . 2 1")
    assert agreement.mean_cohen(some) == pytest.approx((4 * 1 + 2 * -1) / 6)


def test_an_order_of_the_best_k_of_m_says_so_many_comparisons():
    for count in range(2, 7):
        for named in range(1, count + 1):
            pairs = list(rankings.comparisons(range(named), count))
            assert len(pairs) == len(set(pairs)) == named * (named - 1) // 2 + named * (count - named)
            assert all(better < worse for better, worse in pairs)


def test_shares_of_comparisons_that_are_won():
    assert rankings.shares([(2, 0)], 0, 4) == [2 / 3, 0, 1, 0]
    assert rankings.shares([(0,), (0,), (1,)], 0, 2) == pytest.approx([2 / 3, 1 / 3])
    assert rankings.shares([(0,)], 1, 2) == [0.75, 0.25]
    assert rankings.shares([], 2, 3) == [0.5] * 3
    assert rankings.shares([], 0, 2) == [None, None]
