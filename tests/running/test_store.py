"""Recipes that share steps: they are made once, found under any name, and waited for while another makes them."""

import json
import os
import signal

import pytest
from conftest import SFT_ROWS
from launches import finished, train_started, until
from run_steps import run_recipe, write_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts, locks, tracking
from trimtab.pipelines.running import launch, making
from trimtab.pipelines.training.checkpoints import newest
from trimtab.scripts import run, train


@pytest.fixture
def mixed(write):
    """A stage that takes a moment."""
    rows = write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in SFT_ROWS))
    return {"kind": "mix", "synthetic": [rows], "real": rows, "real_fraction": 0.5}


def test_a_step_of_two_recipes_is_made_once_and_seen_in_both(mixed, tmp_path, capsys):
    first = run_recipe(tmp_path, {"first": mixed, "report": {}}, name="one")
    made = artifacts.read_done(first["first"].dir)
    second = run_recipe(tmp_path, {"start": mixed, "next": {**mixed, "real": "$start"}, "report": {}}, name="two")
    assert artifacts.read_done(second["start"].dir) == made
    assert (made["recipe"], made["step"]) == ("one", "first")
    assert (tmp_path / "runs" / "two" / "start" / "output" / "train.parquet").is_file()
    page = (tmp_path / "runs" / "two" / "report" / "output" / "report.html").read_text()
    assert ">start<" in page
    assert ">first<" not in page


def test_a_recipe_of_another_name_finds_all_and_gets_a_view(mixed, tmp_path, monkeypatch):
    stages = {"first": mixed, "second": {**mixed, "real": "$first"}}
    run_recipe(tmp_path, stages)
    monkeypatch.setattr(launch, "launch", lambda *_: pytest.fail("all is done"))
    assert run.main([str(write_recipe(tmp_path, stages, name="renamed", wandb=False))]) == 0
    assert (tmp_path / "runs" / "renamed" / "second" / "done.json").is_file()


def test_equal_stages_of_one_recipe_are_made_once(mixed, tmp_path, capsys):
    steps = run_recipe(tmp_path, {"first": mixed, "again": mixed})
    assert steps["first"].dir == steps["again"].dir
    assert capsys.readouterr().out.count(" took ") == 1
    assert (tmp_path / "runs" / "test" / "again" / "output").is_dir()


@pytest.mark.parametrize("main", [run.main, train.main])
@pytest.mark.parametrize("made", [True, False])
def test_a_step_that_another_process_makes_is_waited_for(main, made, mixed, tmp_path, capsys, monkeypatch):
    """It is done then, or what the other has left undone is made here."""
    path = str(write_recipe(tmp_path, {"first": mixed}, wandb=False))
    (step,) = Recipe.load(path).steps
    other = locks.Lock(locks.of_folder(step.dir), "other/first")
    other.take()

    def ends(seconds):
        if seconds == locks.POLL:
            artifacts.fresh(step.dir)
            if made:
                artifacts.publish(step.dir, {"fingerprint": step.fingerprint, "metrics": {}})
            other.release()

    def launched(*_, **__):
        assert not made
        assert locks.holder(locks.of_folder(step.dir)).split(": ")[1].startswith("test/first ")
        artifacts.fresh(step.dir)
        artifacts.publish(step.dir, {"fingerprint": step.fingerprint, "metrics": {}})
        return 0

    monkeypatch.setattr(locks.time, "sleep", ends)
    monkeypatch.setattr(launch, "launch", launched)
    monkeypatch.setattr(making, "make", launched)
    assert main([path]) == 0
    out = capsys.readouterr().out
    assert "    first is being made by process " in out
    assert ": other/first. Waiting until that ends" in out
    assert ("    done: " in out) == made
    assert (tmp_path / "runs" / "test" / "first").is_symlink()
    assert locks.holder(locks.of_folder(step.dir)) is None


@pytest.mark.slow
def test_a_recipe_killed_in_a_step_that_another_waits_for_ends_as_the_other_does(model, mixed, write, tmp_path):
    """The other goes on from its checkpoint; the killed one, started again, makes nothing twice."""
    train = {"max_steps": 40, "save_steps": 4, "logging_steps": 1, "per_device_train_batch_size": 2}
    sft = {"kind": "sft", "model": {"model_name_or_path": model}, "data": write("sft.jsonl", SFT_ROWS), "train": train}
    (tmp_path / "other").mkdir()
    top = {"output_dir": str(tmp_path / "runs"), "wandb": False}
    last, end = (mixed | {"real_fraction": fraction} for fraction in (0.2, 0.8))
    one = write_recipe(tmp_path, {"first": mixed, "sft": sft, "last": last}, name="one", **top)
    two = write_recipe(tmp_path / "other", {"start": mixed, "chat": sft, "end": end}, name="two", **top)
    plans = [{step.name: step for step in Recipe.load(str(path)).steps} for path in (one, two)]
    shared = [plans[0]["first"], plans[0]["sft"]]
    assert [step.dir for step in shared] == [plans[1]["start"].dir, plans[1]["chat"].dir]

    victim = train_started(one)
    until(lambda: newest(plans[0]["sft"].dir / "checkpoints"))
    os.killpg(victim.pid, signal.SIGSTOP)  # it holds the step, in the middle of it
    assert not plans[0]["sft"].done
    other = train_started(two)
    until(lambda: "chat is being made by process" in other.out.read_text())
    os.killpg(victim.pid, signal.SIGKILL)
    again = train_started(one)
    ended = [finished(process, 120) for process in (victim, other, again)]

    assert [code for code, _ in ended] == [-signal.SIGKILL, 0, 0], ended
    makers = [artifacts.read_done(step.dir)["recipe"] for step in shared]
    assert makers[0] == "one"
    assert artifacts.read_done(shared[1].dir)["metrics"]["train/resumed_from"] > 0
    logged = [row["step"] for row in tracking.read(shared[1].dir / "metrics.jsonl") if "train/loss" in row]
    assert logged == list(range(1, 41))
    said = "".join(out for _, out in ended)
    assert [said.count(f" s: {step.output}") for step in shared] == [1, 1]  # how a step that was made ends
    assert all(step.done for plan in plans for step in plan.values())
