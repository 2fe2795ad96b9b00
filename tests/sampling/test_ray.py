"""`sample` and `score` on a Ray cluster of two processes, one of which is killed in the middle."""

import json
import os
import sys
import threading
import time

import psutil
import pyarrow.parquet as pq
import pytest
from run_steps import refused, run_recipe, write_recipe

from trimtab.pipelines.data import clusters
from trimtab.pipelines.planning.recipe import Recipe

CLUSTER = {"workers": 2, "num_gpus": 0}


def rows_of(step):
    return pq.read_table(step.output / "train.parquet").to_pylist()


def sampled(model, prompts, **options):
    return {"kind": "sample", "model": {"model_name_or_path": model}, "prompts": prompts, "num_generations": 4,
            "sample_batch_size": 4, "generate": {"max_new_tokens": 24}, **options}  # fmt: skip


def workers():
    """The processes of Ray's workers that are children of this one."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith("ray::Map")]


@pytest.fixture
def killed(monkeypatch):
    """Kills one worker as soon as the first of the given files is there, and tells which."""
    said = []

    def kill(folder, pattern):
        while not (any(folder.glob(pattern)) and workers()):
            time.sleep(0.01)
        victim = workers()[0]
        victim.kill()
        said.append(victim.pid)

    def start(folder, pattern):
        threading.Thread(target=kill, args=(folder, pattern), daemon=True).start()
        return said

    return start


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine, started once: that takes longer than all that is done with it here."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    paths = os.pathsep.join(path for path in sys.path if os.path.isdir(path))
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    yield
    ray.shutdown()


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_no_row_and_makes_none_twice(cluster, model, prompts, tmp_path, killed):
    (tmp_path / "there").mkdir()
    here = rows_of(run_recipe(tmp_path, {"sample": sampled(model, prompts)})["sample"])
    stages = {"sample": sampled(model, prompts, engine="ray", ray=CLUSTER)}
    (step,) = Recipe.load(str(write_recipe(tmp_path / "there", stages, wandb=False))).steps
    victims = killed(step.dir, "parts/rows-*.parquet")
    run_recipe(tmp_path / "there", stages)
    assert len(victims) == 1
    there = rows_of(step)
    assert len({(row["prompt_index"], row["sample_index"]) for row in there}) == len(there)
    assert there == here  # bit for bit, log-probabilities among them


@pytest.fixture
def slow_reward(tmp_path):
    """A reward that takes its time, and writes down each call of it."""
    (tmp_path / "slowly.py").write_text(
        "import pathlib, time, uuid\n\n\n"
        "def length(completions, **columns):\n"
        "    time.sleep(0.2)\n"
        f"    (pathlib.Path({str(tmp_path)!r}) / f'call-{{uuid.uuid4()}}').touch()\n"
        "    return [float(len(completion[0]['content'])) for completion in completions]\n"
    )
    return str(tmp_path / "slowly.py")


@pytest.mark.slow
def test_scores_of_a_cluster_are_those_of_this_process(cluster, model, prompts, tmp_path, killed, slow_reward):
    rewards = {"long": {"kind": "trl_function", "path": f"{slow_reward}:length"}}
    scored = {"completions": "$sample", "rewards": rewards, "batch_size": 4}
    victims = killed(tmp_path, "call-*")
    run_recipe(tmp_path, {"sample": sampled(model, prompts), "score": {**scored, "ray": CLUSTER}})
    assert len(victims) == 1
    steps = run_recipe(tmp_path, {"sample": sampled(model, prompts), "score": scored})
    (journal,) = (steps["score"].dir.parent / "scored").glob("*/rank-0.jsonl")
    rows = [json.loads(line)["row"] for line in journal.read_text().splitlines() if line]
    assert sorted(rows) == list(range(40))  # each once
    for row in rows_of(steps["score"]):
        assert row["scores"]["long"] == len(row["completion"][0]["content"])


def test_ray_that_is_not_installed_is_said_before_a_launch(model, prompts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(clusters, "find_spec", lambda name: None)
    said = refused(tmp_path, {"sample": sampled(model, prompts, engine="ray")}, capsys)
    assert "stages.sample.engine: Ray is not installed: pip install trimtab[ray]" in said


@pytest.mark.parametrize("options", [{"engine": "ray"}, {"engine": "ray", "ray": {"address": "auto", "workers": 64}}])
def test_where_a_step_runs_is_no_part_of_what_it_is(options, model, prompts, tmp_path):
    stages = {"here": sampled(model, prompts), "there": sampled(model, prompts, **options)}
    here, there = Recipe.load(str(write_recipe(tmp_path, stages))).steps
    assert here.fingerprint == there.fingerprint
