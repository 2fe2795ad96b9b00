"""The answer of most completions, prompt by prompt."""

import pytest

from trimtab import rewards
from trimtab.rewards.composite import Composite
from trimtab.rewards.math import Math
from trimtab.rewards.vote import Vote

PROMPTS = ["p"] * 4 + ["q"] * 2
SAID = ["#### 4", r"so \boxed{4.0}", "it is 5", "nothing", "#### 1", "#### 2"]


def ask(reward, **columns):
    return list(rewards.outcomes(reward, PROMPTS, SAID, **columns))


def test_the_answer_of_most_wins_and_a_tie_has_no_winner():
    assert ask(Vote()) == [1.0, 1.0, 0.0, 0.0, None, None]


@pytest.mark.parametrize(("share", "scores"), [(0.5, [1.0, 1.0, 0.0, 0.0]), (0.51, [None] * 4)])
def test_the_winner_has_a_share_of_all_completions(share, scores):
    assert ask(Vote(share=share))[:4] == scores


def test_completions_without_an_answer_elect_nobody():
    assert Vote()(["p"] * 2, ["none", "no"]) == [None, None]


def test_beside_a_verifier_it_speaks_where_nobody_knows_the_answer():
    parts = {"gold": Math(compare="numbers"), "agreed": Vote(column="answer")}
    right = Composite(rewards=parts, missing="ignore")
    assert ask(right, answer=["5"] * 4 + ["2"] * 2) == [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert ask(right, answer=[None] * 4 + ["2"] * 2) == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="no column 'answer'"):
        Vote(column="answer")(["p"], ["#### 1"])
    with pytest.raises(ValueError, match="share must be from 0 to 1, got 2"):
        Vote(share=2)
