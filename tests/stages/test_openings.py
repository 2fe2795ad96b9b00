"""The stage `openings`: the first words of texts as prompts."""

from outputs import metrics_of, rows_of
from run_steps import run_recipe, write_recipe

from trimtab.scripts import train


def test_openings_are_the_first_words_and_lose_nothing(tmp_path, write):
    texts = ["Once upon a time there was", "two words", "\n one  two\tthree four.", "a b c"]
    steps = run_recipe(
        tmp_path, {"openings": {"data": write("t.jsonl", [{"text": text} for text in texts]), "words": 3}}
    )
    rows = rows_of(steps["openings"])
    assert [row["prompt"] + row["completion"] for row in rows] == [texts[0], texts[2]]
    assert [row["prompt"] for row in rows] == ["Once upon a", "\n one  two\tthree"]
    assert metrics_of(steps["openings"])["too_short"] == 2


def test_texts_that_are_all_too_short_are_an_error(tmp_path, write, capsys):
    path = write_recipe(tmp_path, {"openings": {"data": write("t.jsonl", [{"text": "a b"}]), "words": 2}}, wandb=False)
    assert train.main([str(path)]) == 2
    assert "none of 1 texts has more than 2 words" in capsys.readouterr().err
