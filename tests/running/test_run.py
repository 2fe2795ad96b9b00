"""The launchers: exit codes, resumption after SIGKILL, signals, the lock."""

import json
import os
import shutil
import signal
from itertools import pairwise

import psutil
import pytest
from conftest import ROOT, SFT_ROWS, SHRUNK
from launches import TWO, finished, two_ranks, until, warm
from run_steps import write_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.running import launch as launching
from trimtab.pipelines.running import locking, runner
from trimtab.pipelines.training.checkpoints import newest
from trimtab.scripts import run, train

TINY = str(ROOT / "recipes" / "tiny.yaml")


def stages_of(command):
    """The steps that a launch is to make."""
    return [word for before, word in pairwise(command) if before == "--stage"]


def publish(step):
    """Leaves what a step leaves that is done."""
    artifacts.fresh(step.dir)
    artifacts.publish(step.dir, {"fingerprint": step.fingerprint, "metrics": {}})


def logged(step):
    """The steps that a training has logged so far."""
    path = step.dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [row["step"] for row in map(json.loads, lines) if "train/loss" in row]


@pytest.fixture
def sft(model, write):
    train_block = {"max_steps": 2, "per_device_train_batch_size": 4, "gradient_checkpointing": False}
    return {
        "kind": "sft",
        "model": {"model_name_or_path": model},
        "data": write("sft.jsonl", SFT_ROWS),
        "train": train_block,
    }


def test_config_flag_and_position_name_the_recipe(tmp_path, sft, capsys):
    recipe = str(write_recipe(tmp_path, {"a": sft}))
    for words in ([recipe, "--plan"], ["--config", recipe, "--plan"], ["--config", recipe, "seed=1", "--plan"]):
        assert run.main(words) == 0
    plans = capsys.readouterr().out
    assert plans.count("1 steps, 0 done, 1 pending") == 3
    assert f"scripts/train.py {recipe} seed=1 --stage a" in plans
    with pytest.raises(SystemExit):
        run.main(["--plan"])


def test_the_chain_stops_at_the_first_failure(tmp_path, sft, monkeypatch, capfd):
    recipe = str(write_recipe(tmp_path, {"a": sft, "b": {**sft, "seed": 1}, "c": {**sft, "seed": 2}}))
    launched = []

    def fake(command, *_):
        launched.append(stages_of(command))
        if "a" in launched[-1]:
            publish(Recipe.load(recipe).steps[0])
        return 7

    monkeypatch.setattr(launching, "launch", fake)
    assert run.main([recipe]) == 7
    assert "b failed (exit code 7); 1 steps after it were not started" in capfd.readouterr().err
    assert run.main([recipe]) == 7
    assert launched == [["a", "b", "c"], ["b", "c"]]  # one launch, and again of what is not done


def test_a_launch_that_ends_well_but_leaves_nothing_is_a_failure(tmp_path, sft, monkeypatch):
    monkeypatch.setattr(launching, "launch", lambda *_: 0)
    assert run.main([str(write_recipe(tmp_path, {"a": sft}))]) == 1


@pytest.fixture
def long(tmp_path, sft, write):
    """A recipe whose last step reads rows of the first one that are too long for it, with a training between."""
    stories = write("stories.jsonl", [{"text": "a b c d e f g h i j k l m n o p q r s t u v w x y z" * 4}] * 8)
    own = {**sft, "data": "$openings", "train": {**sft["train"], "max_length": 16}}
    return write_recipe(
        tmp_path, {"openings": {"data": stories, "words": 4}, "first": sft, "second": own}, wandb=False
    )


def test_rows_that_a_step_has_made_are_looked_at_before_others_take_their_hours(long, capfd):
    assert train.main([str(long)]) == 2
    error = capfd.readouterr().err
    assert "stages.second.data" in error
    assert "beyond max_length (16)" in error
    assert [step.name for step in Recipe.load(str(long)).steps if step.done] == ["openings"]


def test_no_step_is_said_to_have_failed_by_a_mistake_in_another(long, monkeypatch, capfd):
    monkeypatch.setattr(launching, "launch", lambda *_: train.main([str(long)]))
    monkeypatch.setattr(runner, "LAUNCHED", True)
    assert run.main([str(long)]) == 2
    error = capfd.readouterr().err
    assert "stages.second.data" in error
    assert error.endswith("2 steps were not started. The same command continues here\n")
    assert "failed" not in error


def test_the_launcher_looks_at_them_between_launches(long, monkeypatch, capfd):
    def in_process(command, *_):
        return train.main([str(long), "--stage", *stages_of(command)])

    monkeypatch.setattr(launching, "launch", in_process)
    monkeypatch.setattr(runner, "LAUNCHED", True)
    monkeypatch.setattr(launching.grouping, "group", lambda steps, shared: steps[:1])
    assert run.main([str(long)]) == 2
    assert "stages.second.data" in capfd.readouterr().err
    assert [step.name for step in Recipe.load(str(long)).steps if step.done] == ["openings"]


def test_run_directory_in_use(tmp_path, sft, capsys):
    recipe = Recipe.load(str(write_recipe(tmp_path, {"a": sft})))
    with locking.lock(recipe.run, "the first launcher"):
        assert run.main([recipe.path]) == 2
        assert "in use by process" in (error := capsys.readouterr().err)
        assert "the first launcher" in error
        assert train.main([recipe.path]) == 2
        assert "the first launcher" in capsys.readouterr().err


@pytest.mark.slow
def test_accelerate_launch_runs_each_step_and_a_signal_leaves_no_orphan(tmp_path, sft):
    """run.py on a step of many small steps: SIGTERM reaches the worker, exit code 143, and the rerun resumes."""
    sft["train"] |= {"max_steps": 100_000, "save_steps": 100_000, "logging_steps": 1}
    stages = {"a": {**sft, "train": {**sft["train"], "max_steps": 2}}, "b": sft}
    recipe = str(write_recipe(tmp_path, stages, wandb=False))
    first, step = Recipe.load(recipe).steps
    process = warm.start("run", ["scripts/run.py", recipe])  # a real one: test_stopping.py
    until(lambda: len(logged(step)) > 5)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2  # accelerate and its worker
    os.kill(process.pid, signal.SIGTERM)
    code, out = finished(process, timeout=60)
    assert code == 143, out
    assert "was interrupted and has a checkpoint of step" in out
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), 10)
    assert first.done
    assert not step.done
    assert "accelerate launch --quiet --config_file accelerate_configs/cpu.yaml scripts/train.py" in out
    saved = newest(step.dir / "checkpoints").name
    reached = len(logged(step))
    assert saved == f"checkpoint-{reached}"  # of the last step
    process = warm.start("run", ["scripts/run.py", recipe])
    until(lambda: len(logged(step)) > reached)
    assert logged(step) == list(range(1, len(logged(step)) + 1))  # no step twice: it went on from there
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)  # nobody forwards it: the kernel tells the worker
    finished(process, timeout=60)
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), 10)


@pytest.mark.slow
def test_two_ranks_run_the_whole_chain_and_sample_what_one_rank_samples(tmp_path):
    """One rank up to the samples, which two ranks then make again; and a whole chain of two ranks."""
    pair = Recipe.load(TINY, [*SHRUNK, f"output_dir={tmp_path}/two"], TWO)
    code, out = two_ranks(TINY, *pair.overrides, timeout=600)
    assert code == 0, out
    records = [artifacts.read_done(step.dir) for step in pair.steps]
    assert {record["world_size"] for record in records} == {2}
    assert {record["distributed"] for record in records} == {"MULTI_CPU"}
    alone = Recipe.load(TINY, [*SHRUNK, "defaults.batch_size=4", f"output_dir={tmp_path}/one"])
    chosen = [word for stage in ("world", "scratch", "sft", "dpo", "sample") for word in ("--stage", stage)]
    assert train.main([TINY, *alone.overrides, *chosen]) == 0
    step = next(step for step in alone.steps if step.name == "sample")
    before = artifacts.read_done(step.dir)
    shutil.rmtree(step.dir)
    code, out = two_ranks(TINY, *alone.overrides, "--stage", "sample")
    assert code == 0, out
    after = artifacts.read_done(step.dir)
    assert (before["world_size"], after["world_size"]) == (1, 2)
    assert before["files"] == after["files"]
