"""Trainings that search for thresholds: they resume in the middle of a point, and what they find can be held."""

import json
import os
import signal

import pytest
from constrained_runs import constrained, run_again
from launches import TWO, two_ranks, two_ranks_started, until, weights
from outputs import metrics_of
from run_steps import run_recipe, write_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.scripts import train


def searching(model, prompts, search="nelder_mead", **options):
    watched = {"metric": {"kind": "pattern", "regex": "b", "count": True, "weight": 0}}
    block = constrained(
        model,
        prompts,
        eval_data=prompts,
        audit={"overlap": "warn"},
        train={"per_device_eval_batch_size": 8, "max_steps": 12, "save_total_limit": 20},
        **options,
    )
    block["constrained"]["rewards"] = block["constrained"]["rewards"] | watched
    block["constrained"]["thresholds"] = {"search": search, "metric": "metric", "patience": 2, "settle": 0.2}
    return block


@pytest.mark.slow
@pytest.mark.parametrize(("search", "trainer"), [("nelder_mead", "grpo"), ("bayes", "ppo")])
def test_a_run_that_searches_resumes_in_the_middle_of_a_point(search, trainer, model, prompts, tmp_path, capsys):
    block = searching(model, prompts, search, trainer=trainer)
    first = tmp_path / "undisturbed"
    first.mkdir()
    whole = run_recipe(first, block)["constrained"]
    said = capsys.readouterr().out
    assert "thresholds, step 2: brief " in said
    assert "held from now on" in said
    found = json.loads((whole.output / "search.json").read_text())
    assert len(found["history"]) >= 4
    assert found["thresholds"] == max(found["history"], key=lambda row: row["value"])["point"]
    assert json.loads((whole.output / "thresholds.json").read_text()) == found["thresholds"]
    for at in (1, 5, 6):
        again = run_again(tmp_path, block, whole, at)
        assert weights(again) == weights(whole), f"from step {at}"
        assert (again.output / "search.json").read_text() == (whole.output / "search.json").read_text()


@pytest.mark.slow
def test_killed_on_two_ranks_in_the_middle_of_a_point_it_ends_as_undisturbed(model, prompts, tmp_path):
    block = searching(model, prompts, trainer="ppo")
    block["constrained"]["train"] |= {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4}
    block["constrained"]["thresholds"]["patience"] = 4
    folders = [tmp_path / "whole", tmp_path / "killed"]
    steps = []
    for folder in folders:
        folder.mkdir()
        write_recipe(folder, block, wandb=False, output_dir=str(folder / "runs"))
        steps += Recipe.load(str(folder / "recipe.yaml"), ranks=TWO).steps
    code, out = two_ranks(folders[0] / "recipe.yaml")
    assert code == 0, out
    mark = steps[1].dir / "checkpoints" / "checkpoint-6" / "complete.json"
    launched = two_ranks_started(folders[1] / "recipe.yaml")
    until(mark.exists, 240)
    os.killpg(launched.pid, signal.SIGKILL)
    launched.communicate()
    assert not steps[1].done
    spent = [
        json.loads((path.parent / "objective.json").read_text())["objective"]["spent"]
        for path in (steps[1].dir / "checkpoints").glob("*/complete.json")
    ]
    assert any(0 < each < 4 for each in spent)
    code, out = two_ranks(folders[1] / "recipe.yaml")
    assert code == 0, out
    assert metrics_of(steps[1])["train/resumed_from"] >= 6
    assert weights(steps[0]) == weights(steps[1])
    assert (steps[0].output / "search.json").read_text() == (steps[1].output / "search.json").read_text()


def test_a_threshold_can_be_what_a_stage_above_has_found(model, prompts, tmp_path):
    found = searching(model, prompts)
    second = constrained(model, prompts)["constrained"]
    second["rewards"] = {"brief": {**second["rewards"]["brief"], "threshold": "$constrained.brief"}}
    path = write_recipe(tmp_path, {**found, "second": {"kind": "constrained", **second}}, wandb=False)
    assert train.main([str(path)]) == 0
    steps = {step.name: step for step in Recipe.load(str(path)).steps}
    thresholds_ = json.loads((steps["constrained"].output / "thresholds.json").read_text())
    state = json.loads((steps["second"].dir / "checkpoints" / "checkpoint-7" / "objective.json").read_text())
    assert state["objective"]["constraints"]["brief"] == ["equal", thresholds_["brief"]]
    assert steps["constrained"] in steps["second"].inputs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "metrik"}, "did you mean 'metric'"),
        ({"metric": "brief"}, "brief is trained on"),
        ({"within": 0}, "stages.constrained.thresholds: within must be above 0"),
    ],
)
def test_mistakes(change, message, model, prompts, tmp_path, capsys):
    block = searching(model, prompts)
    block["constrained"]["thresholds"] |= change
    assert train.main([str(write_recipe(tmp_path, block, wandb=False))]) == 2
    assert message in capsys.readouterr().err
