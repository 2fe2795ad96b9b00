"""Several scores of a completion as one, where rewards abstain on each other's tasks."""

import pytest
from outputs import metrics_of, rows_of
from run_steps import refused, run_recipe, write_recipe

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.running import runner
from trimtab.pipelines.scoring.combining import Combination

SCORES = [{"sums": 2.0, "proofs": None}, {"sums": None, "proofs": 3.0}, {"sums": None, "proofs": None}]


def test_a_sum_is_of_all_rewards_or_of_those_that_spoke():
    weights = {"sums": 2.0, "proofs": -1.0}
    assert [Combination(weights)(row) for row in SCORES] == [None, None, None]
    assert [Combination(weights, "ignore")(row) for row in SCORES] == [4.0, -3.0, None]
    assert [Combination.of("sums")(row) for row in SCORES] == [2.0, None, None]


def test_what_is_missing_is_said_with_its_cure_where_that_is_one():
    both = {"sums": 1.0, "proofs": 1.0}
    assert Combination(both).abstentions(SCORES) == (
        "'sums' abstained on 2 of 3 and 'proofs' abstained on 2 of 3 completions; "
        "`missing: ignore` sums the rewards that spoke"
    )
    assert Combination(both, "ignore").abstentions(SCORES[2:]).endswith("'proofs' abstained on 1 of 1 completions")
    assert Combination.of("sums").abstentions(SCORES[1:]) == "'sums' abstained on 2 of 2 completions"
    assert Combination(both).abstentions([{"sums": 1.0, "proofs": 2.0}]) == ""


def test_a_reward_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(
        RecipeError, match=r"no reward 'sum' in the scores, did you mean 'sums'\? \(there are: proofs, sums\)"
    ):
        Combination.of("sum").check(SCORES[0], ("stages", "pair", "reward"))


@pytest.fixture
def tasks(write):
    """Scored completions of prompts of two tasks, each with a reward that knows it and one that does not."""
    rows = []
    for index in range(4):
        for k in range(3):
            scores = {"sums": float(k), "proofs": None} if index % 2 else {"sums": None, "proofs": -float(k)}
            said = {"prompt": f"question {index}", "completion": f"answer {k}"}
            rows.append({**said, "prompt_index": index, "sample_index": k, "scores": scores})
    return write("tasks.jsonl", rows)


def test_each_task_is_judged_by_the_rewards_that_know_it(tasks, tmp_path):
    both = {"completions": tasks, "reward": {"sums": 1.0, "proofs": 1.0}, "missing": "ignore"}
    steps = run_recipe(tmp_path, {"pair": both, "curate": {**both, "temperature": 0}})
    assert [row["chosen"] for row in rows_of(steps["pair"])] == ["answer 0", "answer 2"] * 2
    assert [row["completion"] for row in rows_of(steps["curate"])] == ["answer 0", "answer 2"] * 2
    assert metrics_of(steps["curate"])["unscored_dropped"] == 0


@pytest.mark.parametrize("kind", ["pair", "curate"])
def test_a_step_that_every_reward_leaves_without_rows_says_why(kind, tasks, tmp_path, capsys):
    block = {"kind": kind, "completions": tasks, "reward": {"sums": 1.0, "proofs": 1.0}}
    assert runner.train(str(write_recipe(tmp_path, {"chosen": block}, wandb=False))) == 2
    said = capsys.readouterr().err
    assert "stages.chosen: " in said
    assert "'sums' abstained on 6 of 12 and 'proofs' abstained on 6 of 12 completions; `missing: ignore` sums" in said


def test_a_prompt_with_one_completion_makes_no_pair(write, tmp_path, capsys):
    row = {"prompt": "p", "completion": "a", "prompt_index": 0, "sample_index": 0, "scores": {"r": 1.0}}
    stages = {"pair": {"completions": write("one.jsonl", [row]), "reward": "r"}}
    assert runner.train(str(write_recipe(tmp_path, stages, wandb=False))) == 2
    assert "1 prompts have one completion, and a pair needs two: raise `num_generations`" in capsys.readouterr().err


def test_a_misspelt_reward_is_found_before_anything_is_scored(model, prompts, tmp_path, capsys):
    scored = {
        "sample": {"model": {"model_name_or_path": model}, "prompts": prompts},
        "score": {"completions": "$sample", "rewards": {"brief": {"kind": "length", "target": 3}}},
    }
    for kind in ("pair", "curate"):
        block = {"kind": kind, "completions": "$score", "reward": {"breif": 1.0}}
        assert "stages.chosen.reward: no reward 'breif' in the scores, did you mean 'brief'?" in refused(
            tmp_path, {**scored, "chosen": block}, capsys
        )
