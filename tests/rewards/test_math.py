"""The reward `math`: what counts as an answer, what as equal, and what answers that break the comparison become."""

import signal
import threading
from fractions import Fraction

import pytest

from trimtab.rewards import PartlyScored, RewardFailure, _answers, outcomes
from trimtab.rewards._workers import Ended
from trimtab.rewards.math import Math, _outcome

SOLUTION = "She sold 48 / 2 = 24.\nIn all 48 + 24 = 72.\n#### 72"


def score(reward, golds, completions):
    return outcomes(reward, ["p"] * len(golds), completions, answer=golds)


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("It is 1,234.50 dollars.", Fraction(2469, 2)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"$\frac12$", Fraction(1, 2)),
        ("so 3/4", Fraction(3, 4)),
        ("from 5 to -3", -3),
        ("5-3", 3),
        ("\u22127", -7),
        (".5", Fraction(1, 2)),
        ("9{,}000", 9000),
        ("nothing", None),
        ("1/0", None),
        ("9" * 5000, None),
    ],
)
def test_the_number_that_a_text_ends_with(said, number):
    assert _answers.number(said) == number


def test_an_answer_stands_in_the_last_box_or_behind_the_last_mark():
    assert _answers.marked(r"\boxed{1} and \boxed{\frac{1}{2}} #### 3") == r"\frac{1}{2}"
    assert _answers.marked(r"\boxed{1} #### 3 ", "hashes") == "3"
    assert _answers.marked("#### 3\nand so on", "boxed") is None
    assert _answers.marked(r"\boxed{1} then \boxed{2") == "1", "a box that never closes is none"
    assert _answers.marked("#### ") == ""
    assert _answers.marked("3") is None


def test_numbers_are_compared_without_the_extra():
    plain = Math(compare="numbers")
    golds = [SOLUTION, 72, "72.0", r"\boxed{72}", "1/2", "72", None]
    completions = ["so #### 72", "It is 72.", r"\boxed{72}", "73", "0.50", "no idea", "72"]
    assert score(plain, golds, completions) == [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, None]


def test_the_form_that_is_asked_for_is_asked_for():
    hashes = Math(compare="numbers", answer_in="hashes")
    assert score(hashes, ["7"] * 3, ["#### 7", "7", r"\boxed{7}"]) == [1.0, 0.0, 0.0]
    boxed = Math(compare="numbers", answer_in="boxed")
    assert score(boxed, ["7"] * 3, ["#### 7", "7", r"\boxed{7}"]) == [0.0, 0.0, 1.0]


def test_a_gold_answer_that_cannot_be_read_is_a_failure_and_no_zero():
    with pytest.raises(PartlyScored, match="the gold answer cannot be read: 'many'"):
        Math(compare="numbers")(prompts=["p", "p"], completions=["1", "1"], answer=["many", "1"])


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no column 'answer'"):
        Math()(prompts=["p"], completions=["1"], label=["1"])


def test_without_math_verify_the_cure_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"trimtab\[math\].*compare: numbers"):
        Math()(prompts=["p"], completions=["1"], answer=["1"])


@pytest.mark.slow
def test_expressions_are_compared_in_processes_that_hostile_answers_do_not_stop():
    """One pool for all of it, since a process takes seconds to start; asked off the main thread, as trainers do."""
    pytest.importorskip("math_verify")
    reward = Math(cpu_seconds=1, workers=1)
    rows = [
        (r"\frac{1}{2}", r"thus $\frac{2}{4}$", 1.0),
        ("0.5", r"\boxed{\frac12}", 1.0),
        (r"\sqrt{8}", r"\boxed{2\sqrt{2}}", 1.0),
        (SOLUTION, "so the answer is 72 clips", 1.0),
        ("72", "so the answer is 73", 0.0),
        ("72", "no idea", 0.0),
        (None, "72", None),
        ("7", r"\boxed{9^{9^{9^{9}}}}", 0.0),
        ("8", r"\boxed{8}", 1.0),
    ]
    answers = []
    golds, completions, expected = zip(*rows, strict=True)
    asking = threading.Thread(target=lambda: answers.extend(score(reward, list(golds), list(completions))))
    asking.start()
    asking.join()
    assert answers == list(expected)
    [failure] = score(reward, [""], ["1"])
    assert isinstance(failure, RewardFailure)
    assert "the gold answer cannot be read" in failure.reason
    reward.deadline = 0.001
    [late] = score(reward, ["7"], [r"\boxed{9^{9^{9^{9}}}}"])
    assert late.reason == "math-verify has no verdict: no answer within 0.001 s"


def test_a_comparison_without_an_end_is_wrong_and_one_that_breaks_is_a_failure():
    assert _outcome("1", Ended(-signal.SIGXCPU)) == 0.0
    for code in (signal.SIGXCPU, -signal.SIGKILL, 1):
        failure = _outcome("1", Ended(code))
        assert isinstance(failure, RewardFailure)
        assert f"code {int(code)}" in failure.reason
    assert isinstance(_outcome("1", ValueError("no")), RewardFailure)
    assert _outcome("1", {"gold": True, "right": True}) == 1.0
    assert _outcome("1", {"gold": True, "right": False}) == 0.0
    assert "cannot be read" in _outcome("?", {"gold": False, "right": True}).reason
