"""Best of n from stored samples: what the stage reads, estimates and refuses."""

import json

import pytest
from run_steps import refused, run_recipe

from trimtab.rewards._answers import vote

SAMPLES = [("#### 7", 1.0, 0.9), ("it is 7", 1.0, 0.2), ("#### 8", 0.0, 0.5), ("no idea", 0.0, 0.1)]


def write(folder, samples=SAMPLES, prompts=2):
    rows = [
        {"prompt": f"q{i}", "completion": said, "prompt_index": i, "scores": {"right": gold, "rm": score}}
        for i in range(prompts)
        for said, gold, score in samples
    ]
    path = folder / "scored.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_numbers_of_stored_samples(tmp_path):
    data = write(tmp_path)
    block = {"kind": "best_of", "completions": data, "gold": "right", "reward": "rm", "n": [1, 2, 4], "greedy": data}
    steps = run_recipe(tmp_path, {"best": block})
    metrics = json.loads((steps["best"].output / "best_of.json").read_text())["metrics"]
    expected = {
        "prompts": 2,
        "one/mean": 0.5,
        "greedy/mean": 0.5,
        "passing/2/mean": 5 / 6,
        "chosen/1/mean": 0.5,
        "chosen/2/mean": (3 + 1) / 6,  # of 6 pairs the first sample wins 3, the second one, the third two
        "chosen/4/mean": 1.0,
        "gained/4/mean": 0.9,
        "voted/4/mean": 1.0,
        "passing/4/stderr": 0.0,
        "kl/1": 0.0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_what_is_not_there_is_refused(tmp_path, capsys):
    block = {"kind": "best_of", "completions": write(tmp_path), "gold": "right", "n": [8]}
    assert "no prompt has 8 completions with scores" in refused(tmp_path, {"best": block}, capsys)
    assert "no scores by 'rigth', did you mean 'right'?" in refused(
        tmp_path, {"best": {**block, "n": [2], "gold": "rigth"}}, capsys
    )
    assert "numbers of samples from 1 on" in refused(tmp_path, {"best": {**block, "n": [0]}}, capsys)


def test_a_vote_is_a_number_or_what_stands_for_it():
    assert vote(r"\boxed{1/2}") == vote("#### 0.5") == vote("so .50")
    assert vote(r"\boxed{x + y}") == "x + y"
    assert vote("no idea") is None


def test_an_evaluation_chooses_among_each_policys_samples(model, prompts, tmp_path):
    reward = {"kind": "pattern", "regex": "a", "count": True}
    block = {
        "policies": {"one": model},
        "prompts": prompts,
        "rewards": {"as": reward},
        "num_generations": 3,
        "generate": {"max_new_tokens": 6, "temperature": 0.9},
        "best_of": {"n": [1, 3], "gold": "as", "reward": "as", "votes": False},
    }
    steps = run_recipe(tmp_path, {"evaluate": block})
    metrics = json.loads((steps["evaluate-one-best"].output / "best_of.json").read_text())["metrics"]
    sampled = json.loads((steps["evaluate"].output / "evaluation.json").read_text())["policies"]["one"]
    assert metrics["chosen/1/mean"] == pytest.approx(sampled["rewards"]["as"]["mean"])
    assert metrics["chosen/3/mean"] >= metrics["chosen/1/mean"]
    assert steps["evaluate-one-greedy-sample"].options["generate"] == {"max_new_tokens": 6, "do_sample": False}
    assert "greedy/mean" in metrics
