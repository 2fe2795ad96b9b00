"""Passages of a corpus: cut, drawn without reuse, and found again by their words."""

import pytest

from trimtab.pipelines.data import passages
from trimtab.pipelines.planning.errors import RecipeError


def test_passages_overlap_and_lose_no_word():
    words = [str(number) for number in range(23)]
    cut = passages.cut([" ".join(words), "", "a"], words=10, overlap=3)
    assert cut == [" ".join(words[:10]), " ".join(words[7:17]), " ".join(words[14:]), "a"]
    assert passages.cut(["a b c"], words=3, overlap=2) == ["a b c"]


@pytest.mark.parametrize(("count", "of_turn"), [(12, 1), (12, 3), (11, 3)])
def test_no_passage_comes_again_before_all_have_been(count, of_turn):
    turns_of_pass = count // of_turn
    rounds = [passages.of_round(count, of_turn, number, 5, seed=3) for number in range(1, 13)]
    shown = [numbers for of_round in rounds for numbers in of_round]
    for start in range(0, len(shown) - turns_of_pass + 1, turns_of_pass):
        of_pass = [number for numbers in shown[start : start + turns_of_pass] for number in numbers]
        assert len(set(of_pass)) == len(of_pass) == turns_of_pass * of_turn
    assert shown[:turns_of_pass] != shown[turns_of_pass : 2 * turns_of_pass]
    assert passages.of_round(count, of_turn, 2, 5, seed=3) == rounds[1]
    assert {number for numbers in shown for number in numbers} == set(range(count))


def test_what_a_question_is_about_is_found(caplog):
    corpus = ["Spider silk is strong and tough.", "Bread is made of flour.", "The silk of spiders holds bread."]
    near = passages.similar(corpus, ["How strong is spider silk?", "zzz"], 3)
    assert near[0][0] == 0
    assert near[1] == []
    assert not caplog.records


@pytest.mark.parametrize("template", ["{context}", "{context} {question} {other}", "none"])
def test_templates_have_their_places_and_no_others(template):
    with pytest.raises(RecipeError, match="takes"):
        passages.check_places(template, ("context", "question"), ("stages", "x", "asks"))
