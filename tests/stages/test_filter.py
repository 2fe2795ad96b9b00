"""What is worth training on: prompts that are neither too hard nor too easy, clean rows, and what was left out."""

import itertools
import json

import pytest
from outputs import metrics_of, rows_of
from run_steps import refused, run_recipe
from short_trainings import write_rows

from trimtab.pipelines.stages import filter as filtering


def scored(*scores_of_prompts):
    """Scored completions of numbered prompts, each with an answer to check."""
    return [
        {
            "prompt": f"p{index}",
            "answer": str(index),
            "completion": f"{index}-{number}",
            "prompt_index": index,
            "sample_index": number,
            "scores": {"right": score},
        }
        for index, scores in enumerate(scores_of_prompts)
        for number, score in enumerate(scores)
    ]


def test_prompts_that_some_samples_solve_stay_as_prompts(tmp_path):
    data = write_rows(tmp_path / "scored.jsonl", scored([1.0] * 4, [0.0] * 4, [1.0, 0.0, 0.0, 1.0], [1.0, None, 0.0]))
    block = {"data": data, "reward": "right", "passing": [1, 3], "prompts": True}
    steps = run_recipe(tmp_path, {"filter": block, "report": {}})
    step = steps["filter"]
    assert rows_of(step) == [{"prompt": f"p{i}", "answer": str(i)} for i in (2, 3)]
    metrics = metrics_of(step)
    dropped = {key.removeprefix("dropped/"): metrics[key] for key in metrics if key.startswith("dropped/")}
    assert dropped == {"unscored": 1, "too_easy": 4, "too_hard": 4, "repeated": 4}
    examples = json.loads((step.output / "dropped.json").read_text())
    assert [row["row"] for row in examples if row["reason"] == "too_easy"] == [0, 1, 2, 3]
    page = (steps["report"].output / "report.html").read_text()
    assert "2 of 15 rows are kept" in page
    assert '<th scope="row" rowspan="4">too easy</th><td class="n" rowspan="4">4</td>' in page


def test_two_to_five_of_eight_are_kept_most_often_at_the_closed_form():
    """P(2 <= Bin(8, q) <= 5), from all 256 outcomes, has its maximum at q = 1 / (1 + 3^(1/4))."""
    outcomes = [list(outcome) for outcome in itertools.product([0.0, 1.0], repeat=8)]
    left_out = [filtering._hardness(list(range(8)), [0] * 8, outcome, 0.5, 2, 5) for outcome in outcomes]
    kept = [sum(outcome) for outcome, why in zip(outcomes, left_out, strict=True) if not why]

    def chance(q):
        return sum(q**passed * (1 - q) ** (8 - passed) for passed in kept)

    best = 1 / (1 + 3**0.25)
    assert chance(best) > max(chance(best - 1e-3), chance(best + 1e-3))
    assert (chance(0.0), chance(1.0)) == (0.0, 0.0)


def test_the_best_share_and_a_least_score(tmp_path):
    data = write_rows(tmp_path / "scored.jsonl", scored([0.1, 0.9], [0.5, 0.7, 0.2]))
    stages = {
        "share": {"kind": "filter", "data": data, "reward": "right", "share": 0.4},
        "least": {"kind": "filter", "data": data, "reward": "right", "least": 0.5, "share": 0.5},
    }
    steps = run_recipe(tmp_path, stages)
    assert [row["completion"] for row in rows_of(steps["share"])] == ["0-1", "1-1"]
    assert metrics_of(steps["least"])["dropped/below"] == 2
    assert [row["completion"] for row in rows_of(steps["least"])] == ["0-1", "1-1"]


def test_rows_of_any_form_are_cleaned(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    rows = [{"messages": [system, {"role": "user", "content": said}]} for said in ("One", "two", "two", "three")]
    held_out = write_rows(tmp_path / "test.jsonl", [{"prompt": "one"}])
    block = {"data": write_rows(tmp_path / "rows.jsonl", rows), "decontaminate": held_out, "deduplicate": 1.0}
    step = run_recipe(tmp_path, {"filter": block})["filter"]
    assert [row["messages"][1]["content"] for row in rows_of(step)] == ["two", "three"]
    assert (metrics_of(step)["dropped/contaminated"], metrics_of(step)["dropped/duplicates"]) == (1, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "filter: nothing would be left out"),
        ({"reward": "right"}, "filter.reward: says which scores, and not which rows"),
        ({"share": 0.5}, "filter.reward: `share` is of scores"),
        ({"reward": "right", "passing": [5, 2]}, "filter.passing: must be the fewest and the most"),
        ({"reward": "right", "share": 1.5}, "filter.share: must be above 0 and at most 1"),
        ({"reward": "rigth", "share": 0.5}, "did you mean 'right'"),
        ({"reward": "right", "least": 2.0}, "no row of 2 is left: 2 below"),
    ],
)
def test_what_says_nothing_or_leaves_nothing_is_told(change, said, tmp_path, capsys):
    block = {"data": write_rows(tmp_path / "scored.jsonl", scored([1.0, 0.0])), **change}
    assert said in refused(tmp_path, {"filter": block}, capsys)
