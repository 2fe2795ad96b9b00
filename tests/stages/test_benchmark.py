"""Policies on several tasks: the steps, the table of what came of them, and means over tasks with their errors."""

import json

import pytest
from outputs import metrics_of
from run_steps import refused, run_recipe

from trimtab.pipelines.shrinking.miniature import Miniature
from trimtab.pipelines.stages import scoreboard
from trimtab.pipelines.stages.benchmark import Benchmark


@pytest.fixture
def block(model, prompts):
    tasks = {
        "as": {"prompts": prompts, "right": {"kind": "pattern", "regex": "a"}},
        "bs": {"prompts": prompts, "right": {"kind": "pattern", "regex": "b"}, "votes": False},
    }
    return {
        "policies": {"one": model, "two": model},
        "tasks": tasks,
        "reward": {"kind": "length", "target": 3, "unit": "characters"},
        "num_generations": 2,
        "n": [1, 2],
        "generate": {"max_new_tokens": 4},
    }


def test_every_policy_has_its_numbers_on_every_task(block, tmp_path):
    steps = run_recipe(tmp_path, {"benchmark": block})
    metrics, best = metrics_of(steps["benchmark"]), metrics_of(steps["benchmark-as-one-best"])
    assert metrics["one/as/chosen/mean"] == best["chosen/2/mean"]
    assert metrics["one/as/greedy/stderr"] == best["greedy/stderr"]
    assert metrics["two/all/one/mean"] == pytest.approx((metrics["two/as/one/mean"] + metrics["two/bs/one/mean"]) / 2)
    board = json.loads((steps["benchmark"].output / "scoreboard.json").read_text())
    assert set(board["two"]["as"]) == {"greedy", "one", "voted", "chosen", "passing"}
    assert set(board["two"]["bs"]) == {"greedy", "one", "chosen", "passing"}, "no two answers are alike: no votes"
    lines = (steps["benchmark"].output / "summary.txt").read_text().splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[p, t] for p in ("one", "two") for t in ("as", "bs", "all")]


def test_the_error_over_tasks_is_that_of_independent_means():
    tasks = [{"greedy": (0.5, 0.3), "voted": (0.2, 0.1)}, {"greedy": (0.7, 0.4)}]
    assert scoreboard._over_tasks(tasks) == {"greedy": (pytest.approx(0.6), pytest.approx(0.25)), "voted": (0.2, 0.1)}


def test_more_than_are_drawn_cannot_be_chosen_among(block, tmp_path, capsys):
    said = refused(tmp_path, {"benchmark": {**block, "n": [4]}}, capsys)
    assert "benchmark.n: 4 are chosen among, and 2 are drawn: raise `num_generations`" in said
    task = {"as": {"prompts": "org/prompts", "rigth": {"kind": "pattern", "regex": "a"}}}
    assert "tasks.as.right: required key is missing" in refused(
        tmp_path, {"benchmark": {**block, "tasks": task}}, capsys
    )


def test_its_tasks_are_shrunk(tmp_path):
    task = {"prompts": "org/prompts", "right": {"kind": "math"}}
    changes = Benchmark.small({"policies": {}, "tasks": {"sums": task}}, Miniature(tmp_path, frozenset()))
    assert changes["tasks.sums.prompts"].startswith(str(tmp_path))
    assert changes["tasks.sums.right"]["kind"] == "length"
