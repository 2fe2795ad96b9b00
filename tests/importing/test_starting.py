"""A first recipe, from flags or answers, plans as it is written."""

import json

import pytest

from trimtab.pipelines.importing import starting
from trimtab.scripts import init, run

GOALS = ("apo", "dpo", "grpo", "kto", "reward", "sft")


def test_goals_are_the_kinds_that_say_how_a_recipe_begins_with_them():
    assert tuple(starting.goals()) == GOALS


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("goal", GOALS)
def test_it_plans(goal, lora, tmp_path, capsys):
    path = str(tmp_path / "mine.yaml")
    words = ["--goal", goal, "--data", "org/rows", "--model", "org/model-1b", "--output", path]
    assert init.main([*words, *(["--lora"] if lora else [])]) == 0
    assert run.main([path, "--plan", f"output_dir={tmp_path}"]) == 0
    assert f"trimtab plan {path}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "goal"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "dpo"),
        ({"messages": []}, "sft"),
        ({"prompt": "a", "messages": []}, "sft"),
        ({"prompt": "a", "messages": [], "chosen": [], "rejected": []}, "dpo"),
        ({"prompt": "a", "completion": "b", "label": True}, "kto"),
        ({"prompt": "a", "answer": "4"}, "grpo"),
        ({"other": 1}, None),
    ],
)
def test_columns_say_what_rows_are_for(row, goal, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    assert starting.goal_of(str(tmp_path / "rows.jsonl")) == goal


def test_what_is_missing_is_asked_for(tmp_path, monkeypatch, capsys):
    answers = iter(["org/rows", "org/model", "dpo"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    assert init.main(["--output", str(tmp_path / "mine.yaml")]) == 0
    assert "beta: 0.1" in (tmp_path / "mine.yaml").read_text()


def test_without_a_terminal_it_says_what_is_missing(tmp_path, capsys):
    assert init.main(["--output", str(tmp_path / "mine.yaml")]) == 2
    assert "--data is missing" in capsys.readouterr().err
