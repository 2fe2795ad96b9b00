"""Labels of texts: which of them name classes, in what order, and which are refused with the row."""

import pytest

from trimtab.pipelines.data import labels
from trimtab.pipelines.planning.errors import RecipeError


@pytest.mark.parametrize(("given", "known"), [
    (["good", "bad", "good"], ["bad", "good"]),
    ([3, 0, 3, 10], [0, 3, 10]),
    ([1.0, 2.0, 1.0], [1, 2]),
    ([True, False], [False, True]),
])  # fmt: skip
def test_classes_are_the_distinct_labels_in_order(given, known):
    assert labels.classes(given, "rows.jsonl", ()) == known


@pytest.mark.parametrize(("given", "message"), [
    (["a", None], "rows.jsonl, row 1: label is null"),
    ([0, 1, -1], "rows.jsonl, row 2: label -1: numbers below 0 are how datasets mark rows without a label"),
    ([0.0, 0.5], "rows.jsonl, row 1: label 0.5 names no class: use words or whole numbers"),
    ([0.0, float("nan")], "rows.jsonl, row 1: label nan names no class"),
    ([0.0, float("inf")], "rows.jsonl, row 1: label inf names no class"),
    ([["a"], ["b"]], "rows.jsonl, row 0: label ['a'] names no class"),
    (["a", "a"], "rows.jsonl: every label is 'a', and a classifier needs two or more"),
])  # fmt: skip
def test_what_names_no_classes_is_refused_with_its_row(given, message):
    with pytest.raises(RecipeError) as caught:
        labels.classes(given, "rows.jsonl", ())
    assert message in str(caught.value)


def test_a_label_that_training_does_not_have_is_refused():
    labels.check([1.0, 0], [0, 1], "test.jsonl", ())
    with pytest.raises(RecipeError, match=r"test.jsonl, row 1: label 2 does not occur in `data` \(it has: 0, 1\)"):
        labels.check([1, 2], [0, 1], "test.jsonl", ())
    with pytest.raises(RecipeError, match="label 'goood' does not occur in `data`, did you mean 'good'"):
        labels.check(["goood"], ["bad", "good"], "test.jsonl", ())
