"""Swapping a reward is one override and repeats no sampling; a server that dies costs only what is missing."""

import json
import os
import re
import signal
import time

import pyarrow.parquet as pq
import pytest
from launches import finished, train_started, until, warm
from run_steps import run_recipe, write_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.scripts import train

URL = re.compile(r"serving.* (http\S+)\n")
FUNCTIONS = """
def words(prompts, completions, **columns):
    return [float(len(c[0]["content"].split())) for c in completions]

def reward_func(queries, prompts, labels, **kwargs):
    import torch
    return {"rewards": torch.tensor([float(len(q) - len(p)) for q, p in zip(queries, prompts)])}

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str.count(ground_truth)), "length": len(solution_str)}

def slow(prompts, completions, **columns):
    import pathlib, time
    time.sleep(0.05 * len(completions))
    with pathlib.Path(__file__).with_name("asked").open("a") as file:
        file.writelines(c.split()[-1] + "\\n" for c in completions)
    return [float(c.split()[-1]) for c in completions]
"""


@pytest.fixture
def functions(tmp_path):
    path = tmp_path / "functions.py"
    path.write_text(FUNCTIONS)
    return path


@pytest.fixture
def serve(tmp_path):
    """Starts scripts/serve_reward.py with a reward block, waits until it is ready, and returns (process, url)."""
    started = []

    def serve(block, port=0, **keys):
        config = tmp_path / "server.yaml"
        config.write_text(json.dumps({"reward": block, "port": port, **keys}))
        process = warm.start("script", ["scripts/serve_reward.py", "--config", str(config)])
        started.append(process)
        until(process.out.exists)
        until(lambda: URL.search(process.out.read_text()))
        return process, URL.search(process.out.read_text())[1]

    yield serve
    for process in started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            finished(process)


@pytest.mark.slow
def test_a_reward_is_swapped_by_one_override_and_nothing_is_sampled_again(model, functions, serve, tmp_path, write):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    scorer = tmp_path / "scorer"
    AutoModelForSequenceClassification.from_pretrained(model, num_labels=1).save_pretrained(scorer)
    AutoTokenizer.from_pretrained(model).save_pretrained(scorer)
    prompts = write("prompts.jsonl", [{"prompt": [{"role": "user", "content": f"say a {i}"}], "ground_truth": "a"}
                                      for i in range(4)])  # fmt: skip
    local = {"kind": "reward_model", "path": str(scorer)}
    stages = {
        "sample": {"model": {"model_name_or_path": model}, "prompts": prompts, "num_generations": 2,
                   "generate": {"max_new_tokens": 6}},
        "score": {"completions": "$sample", "rewards": {"r": local}},
        "pair": {"completions": "$score", "reward": "r"},
    }  # fmt: skip
    first = run_recipe(tmp_path, stages)
    sampled = (first["sample"].dir / "done.json").stat().st_mtime_ns
    _, url = serve(local)
    swaps = {
        "trl": {"kind": "trl_function", "path": f"{functions}:words"},
        "openrlhf": {"kind": "openrlhf_function", "path": str(functions), "tokenizer": model},
        "verl": {"kind": "verl_function", "path": str(functions)},
        "served": {"kind": "remote", "url": url, "tokenizer": str(scorer)},
        "composite": {"kind": "composite", "rewards": {"one": local, "two": {"kind": "length", "target": 3}}},
    }
    scores = {"local": column(first["score"])}
    path = str(write_recipe(tmp_path, stages, wandb=False))
    for name, block in swaps.items():
        words = [f"stages.score.rewards.r={json.dumps(block)}"]
        steps = Recipe.load(path, words).steps
        assert [step.name for step in steps if not step.done] == ["score", "pair"]
        assert train.main([path, *words, "--stage", "score"]) == 0
        scores[name] = column(steps[1])
    assert (first["sample"].dir / "done.json").stat().st_mtime_ns == sampled
    texts = [row["completion"][0]["content"] for row in rows_of(first["sample"])]
    assert scores["trl"] == [len(text.split()) for text in texts]
    assert scores["verl"] == [text.count("a") for text in texts]
    assert all(score > 0 for score in scores["openrlhf"])
    assert scores["served"] == pytest.approx(scores["local"], abs=1e-6)
    brief = [-abs(len(text.split()) - 3) / 3 for text in texts]
    expected = [a + b for a, b in zip(scores["local"], brief, strict=True)]
    assert scores["composite"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_a_server_killed_in_the_middle_costs_only_what_is_missing(functions, serve, tmp_path, write, capsys):
    rows = write("rows.jsonl", [{"prompt": "p", "completion": f" {i}"} for i in range(96)])
    slow = {"kind": "trl_function", "path": f"{functions}:slow"}
    server, url = serve(slow, batch_size=4)
    remote = {"kind": "remote", "url": url, "batch_size": 4, "concurrency": 1, "tries": 2, "deadline": 10}
    stages = {"score": {"completions": rows, "rewards": {"r": remote}, "batch_size": 16}}
    path = write_recipe(tmp_path, stages, wandb=False)
    scoring = train_started(path)
    asked = tmp_path / "asked"
    while not asked.exists() or len(asked.read_text().split()) < 30:
        time.sleep(0.05)
    os.kill(server.pid, signal.SIGKILL)
    finished(server)
    killed = time.monotonic()
    code, error = finished(scoring, 60)
    assert code == 1
    assert time.monotonic() - killed < 15
    assert "error: reward 'r' failed on completion" in error
    assert f"{url}: tcp: ConnectError" in error
    assert "are scored and kept: the same command goes on from there" in error

    known = len(asked.read_text().split())
    serve(slow, port=int(url.split(":")[-1].split("/")[0]), batch_size=4)
    code, out = finished(train_started(path))
    assert code == 0, out
    again = asked.read_text().split()[known + 1 :]  # and the warm-up's
    kept = int(re.search(r"(\d+) of 96 are scored", error)[1])
    assert kept >= 16
    assert len(again) == 96 - kept
    step = Recipe.load(str(path)).steps[0]
    assert column(step) == list(range(96))
    alone = run_recipe(tmp_path, stages, output_dir=str(tmp_path / "undisturbed"))["score"]
    assert rows_of(alone) == rows_of(step)


def rows_of(step):
    return pq.read_table(step.output / "train.parquet").to_pylist()


def column(step):
    return [row["scores"]["r"] for row in rows_of(step)]
