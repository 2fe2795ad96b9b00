"""Scores beside their completions, and the pairs, lists and rankings that are made of them."""

import pytest
from outputs import metrics_of, rows_of
from run_steps import refused, run_recipe
from short_trainings import write_rows


def test_scores_stand_beside_their_completions(chained):
    rows, scored = rows_of(chained["sample"]), rows_of(chained["score"])
    assert [row["completion_ids"] for row in rows] == [row["completion_ids"] for row in scored]
    for row in scored:
        assert row["scores"]["as"] == row["completion"][0]["content"].count("a")
    metrics = metrics_of(chained["score"])
    assert metrics["rewards/as/mean"] == pytest.approx(sum(row["scores"]["as"] for row in scored) / len(scored))
    assert metrics["rewards/as/abstained"] == 0


def test_pairs_are_ordered_by_score_and_what_is_left_out_is_counted(chained):
    scored = rows_of(chained["score"])
    rows = rows_of(chained["pair"])
    assert all(row["chosen_score"] > row["rejected_score"] for row in rows)
    assert all(row["chosen"][0]["content"].count("a") == row["chosen_score"] for row in rows)
    metrics = metrics_of(chained["pair"])
    assert metrics["rows"] + metrics.get("ties_dropped", 0) <= 7
    texts = [[r["completion"][0]["content"] for r in scored if r["prompt_index"] == i] for i in range(7)]
    assert metrics.get("duplicates_dropped", 0) == sum(len(group) - len(set(group)) for group in texts)
    for row in rows_of(chained["ranked"]):
        assert row["completion_scores"] == sorted(row["completion_scores"], reverse=True)
    assert len(rows_of(chained["all"])) >= len(rows)


def test_a_prompt_without_scores_makes_no_pair(tmp_path, write):
    rows = [
        {
            "prompt": "p",
            "completion": f"answer {k}",
            "prompt_index": index,
            "sample_index": k,
            "scores": {"r": float(k) if index else None},
        }
        for index in (0, 1)
        for k in (0, 1, 2)
    ]
    data = write("scored.jsonl", rows)
    selects = ("best_worst", "all", "ranked", "ends", "drawn")
    steps = run_recipe(
        tmp_path, {name: {"kind": "pair", "completions": data, "reward": "r", "select": name} for name in selects}
    )
    for name in selects:
        assert metrics_of(steps[name])["unscored_dropped"] == 3
        assert len(rows_of(steps[name])) == (3 if name == "all" else 1)


@pytest.mark.parametrize(("select", "rows", "ties"), [
    ("best_worst", 1, 1), ("ends", 1, 1), ("all", 2, 4), ("ranked", 1, 3),
])  # fmt: skip
def test_ties_are_left_out_and_counted(select, rows, ties, tmp_path):
    """Of two prompts, one with scores 1, 0.95, 0 and one with 0.5, 0.55, 0.6, at a margin of 0.1."""
    of_prompts = [[1.0, 0.95, 0.0], [0.5, 0.55, 0.6]]
    scored = [
        {"prompt": f"p{index}", "completion": f"{number}", "prompt_index": index, "scores": {"r": score}}
        for index, scores in enumerate(of_prompts)
        for number, score in enumerate(scores)
    ]
    data = write_rows(tmp_path / "scored.jsonl", scored)
    block = {"completions": data, "reward": "r", "select": select, "margin": 0.1}
    step = run_recipe(tmp_path, {"pair": block})["pair"]
    assert (len(rows_of(step)), metrics_of(step)["ties_dropped"]) == (rows, ties)


def test_groups_keep_ties_and_leave_out_prompts_that_are_all_tied(tmp_path):
    of_prompts = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0]]
    rows = [
        {"prompt": f"p{index}", "completion": f"{number}", "prompt_index": index, "scores": {"right": score}}
        for index, scores in enumerate(of_prompts)
        for number, score in enumerate(scores)
    ]
    data = write_rows(tmp_path / "scored.jsonl", rows)
    step = run_recipe(tmp_path, {"pair": {"completions": data, "reward": "right", "select": "grouped"}})["pair"]
    [row] = rows_of(step)
    assert (row["completions"], row["completion_scores"]) == (["0", "2", "1"], [1.0, 1.0, 0.0])
    assert metrics_of(step)["ties_dropped"] == 6


def test_scores_become_labels_by_a_threshold(tmp_path):
    """Two and a duplicate of one, with one score within the margin: what is left is labelled by the threshold."""
    rows = [
        {"prompt": "say", "completion": text, "prompt_index": 0, "sample_index": place, "scores": {"right": score}}
        for place, (text, score) in enumerate([("a", 1.0), ("b", 0.0), ("a", 1.0), ("c", 0.55)])
    ]
    data = write_rows(tmp_path / "scored.jsonl", rows)
    block = {"completions": data, "reward": "right", "select": "unpaired", "threshold": 0.5, "margin": 0.1}
    step = run_recipe(tmp_path, {"pair": block})["pair"]
    assert [(row["completion"], row["label"]) for row in rows_of(step)] == [("a", True), ("b", False)]
    metrics = metrics_of(step)
    assert (metrics["duplicates_dropped"], metrics["ties_dropped"]) == (1, 1)


@pytest.mark.parametrize("change", [{"select": "unpaired"}, {"threshold": 0.5}])
def test_a_threshold_is_for_labels_alone(change, tmp_path, capsys):
    rows = [{"prompt": "say", "completion": "a", "prompt_index": 0, "sample_index": 0, "scores": {"right": 1.0}}]
    block = {"completions": write_rows(tmp_path / "scored.jsonl", rows), "reward": "right"}
    assert "pair.threshold: `select: unpaired` needs one" in refused(tmp_path, {"pair": {**block, **change}}, capsys)
