"""What a terminal says of how long a run has to go."""

import json
from types import SimpleNamespace

import pytest

from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.running import claiming, to_go

SECONDS = {"sft": 40.0, "dpo": 30.0, "kto": 20.0, "report": 10.0}


@pytest.fixture
def recipe(monkeypatch):
    """Two trainings of one model, and a report of both."""
    sft = SimpleNamespace(name="sft", inputs=[], done=False, dir="sft")
    dpo, kto = (SimpleNamespace(name=name, inputs=[sft], done=False, dir=name) for name in ("dpo", "kto"))
    report = SimpleNamespace(name="report", inputs=[dpo, kto], done=False, dir="report")
    monkeypatch.setenv(to_go.AHEAD, json.dumps(SECONDS))
    monkeypatch.setattr(artifacts, "read_done", lambda folder: {"seconds": 2 * SECONDS[folder]})
    return SimpleNamespace(
        steps=[sft, dpo, kto, report], ranks=SimpleNamespace(jobs=1), heading=lambda step: f"[{step.name}]"
    )


def test_one_after_another_they_take_the_sum_of_their_forecasts(recipe):
    assert to_go.heading(recipe, recipe.steps[0]) == "[sft], about 1 min 40 s to go"


def test_several_at_once_take_no_less_than_the_longest_chain(recipe, monkeypatch):
    recipe.ranks.jobs = 2
    assert to_go.heading(recipe, recipe.steps[0]).endswith("about 1 min 20 s to go")  # and not 50 s
    recipe.ranks.jobs = 1
    monkeypatch.setenv(claiming.MARK, "2")  # in one of their launches
    assert to_go.heading(recipe, recipe.steps[0]).endswith("about 1 min 20 s to go")


def test_the_forecast_is_stretched_by_what_steps_took(recipe):
    recipe.steps[0].done = True
    stretch = (80 + to_go.TRUST * 100) / (40 + to_go.TRUST * 100)
    assert to_go.heading(recipe, recipe.steps[1]).endswith(f"about {to_go.duration(60 * stretch)} to go")


def test_a_run_that_nobody_has_forecast_says_nothing_of_time(recipe, monkeypatch):
    monkeypatch.delenv(to_go.AHEAD)
    assert to_go.heading(recipe, recipe.steps[0]) == "[sft]"
