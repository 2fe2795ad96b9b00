"""A training with the learning rate that an earlier one's gradient norms make, and what a plan refuses of it."""

import json
import shutil

import numpy as np
import pytest
from chains import record
from conftest import SFT_ROWS
from run_steps import refused, run_recipe, write_recipe
from short_trainings import plan

from trimtab.pipelines.algorithms import schedules
from trimtab.pipelines.planning import files
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts, tracking
from trimtab.pipelines.running import runner
from trimtab.pipelines.shrinking import recipe as shrinking

STEPS, RATE = 12, 1e-2


@pytest.fixture
def sft(model, write):
    train = {"max_steps": STEPS, "per_device_train_batch_size": 2, "learning_rate": RATE, "logging_steps": 1,
             "max_length": 64, "gradient_checkpointing": False}  # fmt: skip
    return {"kind": "sft", "model": {"model_name_or_path": model}, "data": write("rows.jsonl", SFT_ROWS),
            "train": train}  # fmt: skip


def logged(step, name):
    rows = tracking.read(step.dir / "metrics.jsonl")
    return {row["step"]: row[name] for row in rows if name in row}


def kept(step):
    """The gradient norms and learning rates of all steps."""
    beside = json.loads((step.output / "gradient_norms.json").read_text())
    return beside["norms"], beside["rates"]


def test_the_learning_rate_is_that_of_the_norms_also_after_an_interruption(sft, tmp_path):
    seldom = {**sft, "train": {**sft["train"], "logging_steps": 5, "max_grad_norm": 0.05}}
    refining = {**seldom, "schedule": {"refine": "$first", "weights": "l2"}}
    refining["train"] = {**sft["train"], "save_steps": 5}
    stages = {"first": seldom, "second": refining, "report": {}}
    ran = run_recipe(tmp_path, stages)
    first, second = ran["first"], ran["second"]
    norms, before = kept(first)
    of_logs = logged(first, "train/grad_norm")
    assert list(of_logs) == [5, 10], "the schedule is of all twelve, however few are logged"
    assert {step: norms[step - 1] for step in of_logs} == pytest.approx(of_logs)
    assert min(norms) > 0.05, "they are from before the clipping"
    assert before == pytest.approx(RATE * (1 - np.arange(STEPS) / STEPS))
    expected = RATE * schedules.factors(schedules.ends(STEPS), norms, STEPS, 2)
    rates = logged(second, "train/learning_rate")
    assert list(rates) == list(range(1, STEPS + 1))
    assert list(rates.values()) == pytest.approx(expected, rel=1e-9)
    assert logged(second, "schedule/refined") == rates
    assert logged(second, "schedule/before") == pytest.approx(dict(enumerate(before, 1)), rel=1e-12)
    assert "Learning rate, refined and before" in (ran["report"].output / "report.html").read_text()

    rows, weights = record(second.dir), files.content_hash(second.output / "model.safetensors")
    undisturbed = kept(second)
    (second.dir / "done.json").unlink()
    for later in (10, 12):
        shutil.rmtree(second.dir / "checkpoints" / f"checkpoint-{later}")
    again = run_recipe(tmp_path, stages)["second"]
    assert artifacts.read_done(again.dir)["metrics"]["train/resumed_from"] == 5
    assert record(again.dir) == rows
    assert files.content_hash(again.output / "model.safetensors") == weights
    assert kept(again) == undisturbed


def test_a_schedule_is_part_of_what_a_step_is_and_its_absence_is_not(sft, tmp_path):
    def steps(**changes):
        return plan(tmp_path, {"first": sft, "second": {**sft, **changes}})

    without, refined = steps(), steps(schedule={"refine": "$first"})
    assert without["second"].fingerprint == without["first"].fingerprint
    assert refined["second"].fingerprint != refined["first"].fingerprint
    assert refined["second"].inputs == (refined["first"],)
    assert steps(schedule={"refine": "$first", "weights": "l2"})["second"].fingerprint != refined["second"].fingerprint


@pytest.mark.parametrize(("schedule", "train", "message"), [
    ({"refine": "elsewhere"}, {}, "elsewhere is no training above: write $that_stage"),
    ({"refine": "$first", "weights": "l3"}, {}, "stages.second.schedule.weights"),
    ({"refine": "$first"}, {"warmup_steps": 3}, "stages.second.train.warmup_steps"),
    ({"refine": "$short"}, {}, "short has 9 gradient norms, one for each step, and a schedule is made of 10 or more"),
])  # fmt: skip
def test_what_cannot_be_refined_is_refused_before_anything_runs(schedule, train, message, sft, tmp_path, capsys):
    short = {**sft, "train": {**sft["train"], "max_steps": 9}}
    second = {**sft, "schedule": schedule, "train": {**sft["train"], **train}}
    assert message in refused(tmp_path, {"first": sft, "short": short, "second": second}, capsys)


def test_a_loop_refines_every_round_by_the_same_training(sft, tmp_path):
    rewards = {"length": {"kind": "length", "target": 3}}
    loop = {"model": {"model_name_or_path": "$first"}, "prompts": sft["data"], "rewards": rewards, "rounds": 2,
            "train": {"learning_rate": RATE}, "schedule": {"refine": "$first"}}  # fmt: skip
    retrained = {**loop, "kind": "self_consuming", "real": sft["data"], "num_generations": 2}
    stages = {"first": sft, "apo": {**loop, "num_generations": 2}, "retrained": retrained}
    steps = plan(tmp_path, stages)
    for name in ("apo-1", "apo", "retrained-1", "retrained-2"):
        assert steps[name].options["schedule"] == {"refine": str(steps["first"].output)}
        assert steps["first"] in steps[name].inputs
    assert "schedule" not in steps["apo-1-sample"].options


def test_a_shrunk_run_refines_the_norms_of_its_few_steps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = {"kind": "sft", "model": {"model_name_or_path": "org/llama-7b"}, "data": "org/data"}
    train = {"learning_rate": 1e-5, "max_steps": 1000, "logging_steps": 10}
    stages = {
        "first": {**block, "train": train},
        "second": {**block, "schedule": {"refine": "$first"}, "train": train},
    }
    recipe = shrinking.shrunk(str(write_recipe(tmp_path, stages, wandb=False)))
    assert runner.train(recipe) == 0
    second = {step.name: step for step in Recipe.load(recipe).steps}["second"]
    assert second.options["schedule"]["fewest"] == 1
    rates = list(logged(second, "schedule/refined").values())
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0
