"""Texts before prompts, and texts that a recipe names by their places."""

import pytest

from trimtab.pipelines.data.prefacing import prefaced
from trimtab.rewards._wording import wording

ASKED = {"role": "user", "content": "Why?"}


@pytest.mark.parametrize(
    ("prompt", "behind"),
    [
        ("Why?", "Be brief.\n\nWhy?"),
        ([ASKED], [{"role": "system", "content": "Be brief."}, ASKED]),
        (
            [{"role": "system", "content": "You are a cat."}, ASKED],
            [{"role": "system", "content": "Be brief.\n\nYou are a cat."}, ASKED],
        ),
    ],
)
def test_a_text_comes_first_in_every_form_of_prompt(prompt, behind):
    assert prefaced(prompt, "Be brief.") == behind
    assert prefaced(prompt, "") == prompt


def test_a_text_is_itself_or_what_stands_where_it_points(tmp_path):
    (tmp_path / "text.txt").write_text("Be brief.\n")
    for text in ("Be brief.", "and/or not", "{{ completion }}/10", "<|a|><|/a|>", "", "a/b " * 5000):
        assert wording(text) == text
    (tmp_path / "of two words").mkdir()
    (tmp_path / "of two words" / "text.txt").write_text("Be kind.")
    assert wording(str(tmp_path / "of two words")) == "Be kind."
    assert wording(str(tmp_path)) == wording(str(tmp_path / "text.txt")) == "Be brief.\n"
    with pytest.raises(ValueError, match=r"no text at \./nowhere"):
        wording("./nowhere")
