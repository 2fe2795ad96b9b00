"""Who meets whom, and what comes of it."""

import pytest

from trimtab.pipelines.algorithms import duels


@pytest.mark.parametrize("count", range(2, 7))
def test_in_a_whole_circle_everyone_meets_everyone_once(count):
    answers = [10 * place for place in range(count)]
    pairs = duels.circle(answers)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) == count * (count - 1) // 2


def test_in_some_rounds_everyone_has_as_many_duels():
    pairs = duels.circle(range(7), 2)
    assert [sum(place in pair for pair in pairs) for place in range(7)] == [4] * 7


def test_a_win_of_one_is_the_others_loss():
    pairs = [(0, 1), (1, 2), (0, 2)]
    assert duels.shares(pairs, [1.0, 0.5, None], 4, is_mutual=True) == [1.0, 0.25, 0.5, None]
    assert duels.shares(pairs, [1.0, 0.5, None], 3, is_mutual=False) == [1.0, 0.5, None]


def test_the_summary_is_in_shares_of_what_was_judged():
    numbers = duels.summary([1.0, 0.0, 0.5, None], [3, 2, 0, 5])
    assert numbers == {"unjudged": 0.25, "ties": pytest.approx(1 / 3), "longer_wins": 0.5}
    assert duels.summary([None], [1]) == {"unjudged": 1.0}
    assert duels.summary([1.0, 1.0, 0.0], [3, -2, -1])["longer_wins"] == pytest.approx(2 / 3)


def test_who_is_not_asked_about_is_a_tie():
    assert duels.with_ties([(0, 1), (1, 2), (0, 2)], [(1, 2), (0, 1)], [None, 1.0]) == [1.0, None, 0.5]
