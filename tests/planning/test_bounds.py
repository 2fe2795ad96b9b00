"""What a number of a step is held against, as it is written in a recipe."""

import math

import pytest

from trimtab.pipelines.planning import bounds
from trimtab.pipelines.planning.errors import RecipeError


@pytest.mark.parametrize(
    ("written", "bound", "reached", "missed", "words"),
    [
        (0.65, ">= 0.65", 0.65, 0.64, "at least 0.65"),
        (">= 0.65", ">= 0.65", 0.65, 0.64, "at least 0.65"),
        (">0", "> 0", 1e-9, 0, "more than 0"),
        ("<=  -1e-3", "<= -0.001", -0.001, 0, "at most -0.001"),
        ("< 2", "< 2", 1.99, 2, "less than 2"),
        (">= 0.123456789", ">= 0.123456789", 0.123456789, 0.1234567889, "at least 0.123456789"),
    ],
)
def test_a_bound_says_what_it_holds_for(written, bound, reached, missed, words):
    assert bounds.bound(written) == bounds.bound(bound) == bound
    assert bounds.missed(reached, bound) is None
    assert bounds.missed(missed, bound) == words
    assert bounds.missed(math.nan, bound) == words


@pytest.mark.parametrize("written", ["=> 1", "== 1", "> much", ">", "0.65 <", True, None, [1], "inf", ">= nan"])
def test_what_is_no_bound_is_refused_at_its_place(written):
    with pytest.raises(RecipeError, match="expected a number, or one behind") as caught:
        bounds.bound(written, ("stages", "helpful", "require", "eval/accuracy"))
    assert caught.value.path == ("stages", "helpful", "require", "eval/accuracy")
