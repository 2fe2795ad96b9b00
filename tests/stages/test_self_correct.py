"""Tries at the same prompts: what a rejected one is told, and which one is taken, against the closed form."""

import itertools

import pytest
from outputs import metrics_of, rows_of
from run_steps import refused, run_recipe
from short_trainings import write_rows

CHAT = [{"role": "user", "content": "say"}]


def scored(*scores, prompt="p", **columns):
    return [
        {
            "prompt": prompt,
            "completion": f"c{number}" if prompt == "p" else [{"role": "assistant", "content": f"c{number}"}],
            "prompt_index": number,
            "sample_index": 0,
            "scores": {"ok": score},
            **columns,
        }
        for number, score in enumerate(scores)
    ]


def test_who_was_rejected_is_told_and_the_others_are_asked_again(tmp_path):
    data = write_rows(tmp_path / "scored.jsonl", scored(1.0, 0.0, None, prompt=CHAT, answer="4"))
    block = {"kind": "retry", "scored": data, "accept": {"ok": 1}, "says": "Not {missed}."}
    steps = run_recipe(tmp_path, {"told": block, "control": {**block, "feedback": False}})
    first, *others = rows_of(steps["told"])
    assert first == {"prompt": CHAT, "answer": "4"}
    for number, row in enumerate(others, start=1):
        answer, told = row["prompt"][1:]
        assert (answer["content"], told["content"], told["role"]) == (f"c{number}", "Not ok.", "user")
    assert rows_of(steps["control"]) == [first] * 3
    assert metrics_of(steps["told"])["accepted"] == pytest.approx(1 / 3)


def test_text_is_told_behind_the_answer(tmp_path):
    data = write_rows(tmp_path / "scored.jsonl", scored(0.0))
    step = run_recipe(tmp_path, {"retry": {"scored": data, "accept": {"ok": 1}, "says": "No."}})["retry"]
    assert rows_of(step) == [{"prompt": "pc0\n\nNo.\n\n"}]


def test_the_share_that_ends_well_is_that_of_independent_tries(tmp_path):
    """Every outcome of three tries, each right in half of them: 1 - (1 - q)^3 of all end with a right one."""
    outcomes = list(itertools.product([0.0, 1.0], repeat=3))
    tries = [
        write_rows(tmp_path / f"{number}.jsonl", scored(*of_try))
        for number, of_try in enumerate(zip(*outcomes, strict=True))
    ]
    step = run_recipe(tmp_path, {"first_accepted": {"tries": tries, "accept": {"ok": 1}}})["first_accepted"]
    rows = rows_of(step)
    assert sum(row["scores"]["ok"] for row in rows) / len(rows) == 1 - 0.5**3
    assert [row["try"] for row in rows] == [
        (1 + of_prompt.index(1.0)) if any(of_prompt) else 3 for of_prompt in outcomes
    ]
    metrics = metrics_of(step)
    assert metrics["accepted"] == 1 - 0.5**3
    assert metrics["tries"] == (1 * 4 + 2 * 2 + 3 * 2) / 8


def test_the_macro_tries_every_prompt_as_often(model, prompts, tmp_path):
    block = {
        "model": {"model_name_or_path": model},
        "prompts": prompts,
        "checks": {"as": {"kind": "pattern", "regex": "a"}},
        "accept": {"as": 1},
        "tries": 2,
        "generate": {"max_new_tokens": 4},
    }
    steps = run_recipe(tmp_path, {"self_correct": block})
    first, second = (rows_of(steps[f"self_correct-{number}-check"]) for number in (1, 2))
    assert len(first) == len(second) == 10
    taken = rows_of(steps["self_correct"])
    for row, one, two in zip(taken, first, second, strict=True):
        assert row["completion"] == (one if one["scores"]["as"] else two)["completion"]
        assert len(two["prompt"]) == (1 if one["scores"]["as"] else 3)
        assert row["prompt"] == one["prompt"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tries": 0}, "self_correct.tries: must be at least 1, got 0"),
        ({"num_generations": 2}, "self_correct.num_generations: must be 1: further answers are further tries, got 2"),
        ({"accept": {"oka": 1}}, "did you mean 'ok'"),
    ],
)
def test_what_makes_no_loop_is_told(change, said, model, prompts, tmp_path, capsys):
    block = {
        "model": {"model_name_or_path": model},
        "prompts": prompts,
        "checks": {"ok": {"kind": "pattern", "regex": "a"}},
        "accept": {"ok": 1},
    }
    assert said in refused(tmp_path, {"self_correct": {**block, **change}}, capsys)
