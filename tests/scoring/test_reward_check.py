"""`scripts/run.py --check-rewards`: what it finds of every reward, and that it changes nothing."""

import json

import pytest
from reward_servers import Server, fine, says
from run_steps import run_recipe, write_recipe

from trimtab.scripts import run

ROWS = [{"prompt": f"p{i}", "completion": "a b " * i, "answer": "a"} for i in range(5)]


@pytest.fixture
def check(tmp_path, write, capsys):
    def check(rewards, completions=None):
        rows = completions or write("rows.jsonl", ROWS)
        path = write_recipe(tmp_path, {"score": {"completions": rows, "rewards": rewards}}, wandb=False)
        code = run.main([str(path), "--check-rewards"])
        assert not (tmp_path / "runs").exists()
        return code, capsys.readouterr().out

    return check


def test_a_reward_that_works(check):
    code, out = check({"brief": {"kind": "length", "target": 4}})
    assert code == 0
    assert "brief (length) of score: ok" in out
    assert "5 completions at" in out
    assert "mean -0.6, std 0.374, min -1, median -0.5, max 0" in out


def test_a_constant_and_an_exception_are_told(check, tmp_path):
    (tmp_path / "f.py").write_text("def same(completions, **kw): return [1.0] * len(completions)\n"
                                   "def bad(completions, **kw): raise KeyError('x')\n")  # fmt: skip
    code, out = check({"same": {"kind": "trl_function", "path": f"{tmp_path}/f.py:same"}})
    assert code == 0
    assert "the same for all: nothing can be learned from it" in out
    code, out = check({"bad": {"kind": "trl_function", "path": f"{tmp_path}/f.py:bad"}})
    assert code == 1
    assert "bad (trl_function) of score: FAILED" in out
    assert "KeyError: 'x'" in out


def test_a_model_without_a_head_is_found(check, model):
    code, out = check({"r": {"kind": "reward_model", "path": model}})
    assert code == 1
    assert "has no trained head" in out


def test_a_remote_reward_is_reached_stage_by_stage(check):
    code, out = check({"r": {"kind": "remote", "url": Server(fine).url}})
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[1:6]] == [
        ["url", "ok"], ["dns", "ok"], ["tcp", "ok"], ["http", "ok"], ["schema", "ok"]]  # fmt: skip
    code, out = check({"r": {"kind": "remote", "url": Server(says("<html>busy</html>")).url}})
    assert code == 1
    assert "schema no" in out
    code, out = check({"r": {"kind": "remote", "url": "http://127.0.0.1:9/get_reward"}})
    assert code == 1
    assert "tcp    no" in out


def test_a_reward_that_is_still_to_be_trained_waits(tmp_path, write, capsys, model):
    pair = {"chosen": "a", "rejected": "b"}
    nested = {"kind": "composite", "rewards": {"m": {"kind": "reward_model", "path": "$helpful"}}}
    stages = {
        "helpful": {"kind": "reward", "model": {"model_name_or_path": model}, "data": write("p.jsonl", [pair] * 2),
                    "train": {}},
        "score": {"completions": write("rows.jsonl", ROWS), "rewards": {"r": nested}},
    }  # fmt: skip
    assert run.main([str(write_recipe(tmp_path, stages, wandb=False)), "--check-rewards"]) == 0
    assert "r (composite) of score: waits for helpful" in capsys.readouterr().out


def test_a_reward_of_several_steps_is_tried_once(tmp_path, write, capsys):
    score = {
        "kind": "score",
        "completions": write("rows.jsonl", ROWS),
        "rewards": {"r": {"kind": "length", "target": 2}},
    }
    stages = {"one": score, "two": {**score, "completions": write("more.jsonl", ROWS)}}
    run_recipe(tmp_path, {"one": score})
    assert run.main([str(write_recipe(tmp_path, stages, wandb=False)), "--check-rewards"]) == 0
    assert capsys.readouterr().out.count("r (length)") == 1
    assert json.loads(next(tmp_path.rglob("score-*/done.json")).read_text())["metrics"]["rewards/r/scored"] == 1
