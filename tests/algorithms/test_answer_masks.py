"""Which tokens of an answer a mask learns: one span, two, nested ones, marks that are missing."""

import random

import pytest

from trimtab.pipelines.algorithms.answer_masks import AnswerMask, after, outside

B, E = 8, 9  # the marks


def places(learned):
    return [place for place, kept in enumerate(learned) if kept]


@pytest.mark.parametrize(
    ("answer", "with_end", "without"),
    [
        ([B, 1, 2, E, 3, 4], [3, 4, 5], [4, 5]),
        ([B, 1, E, 3, B, 1, E, 4], [6, 7], [7]),  # the last one
        ([B, 1, B, 2, E, 3, E, 4], [6, 7], [7]),  # nested
        ([1, E, 3], [1, 2], [2]),  # the beginning was in the prompt
        ([B, 1, E], [2], []),  # nothing was answered
    ],
)
def test_all_up_to_the_last_mark_is_masked(answer, with_end, without):
    assert places(after(answer, E, keep_end=True)) == with_end
    assert places(after(answer, E, keep_end=False)) == without


def test_an_answer_without_a_mark_has_no_mask():
    assert after([B, 1, 2], E, keep_end=True) is None
    for answer in ([1, 2], [B, 1, 2], [1, E, 2], [E, 1, B]):
        assert outside(answer, B, E, 1.0, True, random.Random(0)) is None


@pytest.mark.parametrize(
    ("answer", "with_marks", "without"),
    [
        ([1, B, 2, 3, E, 4], [0, 1, 4, 5], [0, 5]),
        ([B, 1, E, 3, B, 1, E, 4], [0, 2, 3, 4, 6, 7], [3, 7]),
        ([B, 1, B, 2, E, 3, E, 4], [0, 2, 4, 6, 7], [7]),  # the outermost span
        ([B, 1, B, 2, E, 3], [0, 1, 2, 4, 5], [0, 1, 5]),  # the first has no end
        ([B, 1, E, 2, E, 3], [0, 2, 3, 4, 5], [3, 4, 5]),  # the last has no beginning
    ],
)
def test_a_share_of_one_masks_all_inside(answer, with_marks, without):
    assert places(outside(answer, B, E, 1.0, True, random.Random(0))) == with_marks
    assert places(outside(answer, B, E, 1.0, False, random.Random(0))) == without


def test_a_random_share_is_that_share_and_the_same_again():
    mask = AnswerMask(inside=["<", ">"], share=0.2)
    answer = [B, *[1] * 50, E, *[2] * 50]
    learned = mask.learned(answer, (B, E), 7)
    assert learned.count(False) == 10
    assert all(learned[51:])
    assert mask.learned(answer, (B, E), 7) == learned != mask.learned(answer, (B, E), 8)
    shares = [mask.learned([*answer, n], (B, E), 0) for n in range(10, 210)]
    masked = [sum(not of_answer[place] for of_answer in shares) for place in range(1, 51)]
    assert sum(masked) == 200 * 10
    assert max(abs(count - 40) for count in masked) < 5 * (200 * 0.2 * 0.8) ** 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of"),
        ({"before": "x", "inside": ["a", "b"], "share": 0.1}, "give one of"),
        ({"inside": ["a"], "share": 0.1}, "two marks"),
        ({"inside": ["a", "b"]}, "share"),
        ({"before": "x", "share": 0.1}, "share"),
        ({"inside": ["a", "b"], "share": 1.5}, "at most 1, got 1.5"),
    ],
)
def test_masks_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        AnswerMask(**options)
