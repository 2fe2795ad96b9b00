"""Which step each of several launches takes, and on what it runs."""

import pytest
from run_steps import write_recipe

from trimtab.pipelines.planning import ranks
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts, locks
from trimtab.pipelines.running import claiming, locking

WORLD = {"kind": "world"}


@pytest.fixture
def steps(tmp_path, model):
    """Two worlds, and a chain of two steps that begins at the second."""
    stages = {
        "lonely": {**WORLD, "seed": 1},
        "begun": {**WORLD, "seed": 2},
        "sft": {"model": {"model_name_or_path": model}, "data": "$begun/sft"},
        "dpo": {"model": {"model_name_or_path": "$sft"}, "data": "$begun/gold"},
    }
    return Recipe.load(str(write_recipe(tmp_path, stages))).steps


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.setattr(locks, "of_main", lambda ask: ask())


def publish(step):
    artifacts.fresh(step.dir)
    artifacts.publish(step.dir, {"fingerprint": step.fingerprint, "metrics": {}})


def names(steps):
    return [step.name for step in steps]


def test_the_step_on_which_most_others_wait_in_turn_is_first(steps):
    assert names(claiming.by_urgency(steps)) == ["begun", "sft", "lonely", "dpo"]


def test_a_launch_makes_what_nobody_else_makes(steps):
    lonely, begun, *_ = steps
    other = locking.lock_of(begun)
    other.take()
    mine = claiming.taken(steps)
    assert next(mine) is lonely
    assert locks.holder(locks.of_folder(lonely.dir))
    publish(lonely)
    publish(begun)
    other.release()
    assert names([next(mine)]) == ["sft"]
    assert locks.holder(locks.of_folder(lonely.dir)) is None


def test_a_launch_waits_for_what_others_make_and_ends_with_them(steps, monkeypatch):
    lonely, begun, sft, dpo = steps
    for step in (lonely, begun, dpo):
        publish(step)
    other = locking.lock_of(sft)
    other.take()
    waited = []

    def wait(seconds):
        waited.append(seconds)
        publish(sft)

    monkeypatch.setattr(claiming.time, "sleep", wait)
    assert list(claiming.taken(steps)) == []
    assert claiming.POLL in waited


def test_a_step_is_free_again_when_its_maker_fails(steps):
    mine = claiming.taken(steps)
    begun = next(mine)
    with pytest.raises(ZeroDivisionError):
        mine.throw(ZeroDivisionError())
    assert locking.lock_of(begun).take() is None


@pytest.mark.parametrize(
    ("jobs", "devices", "visible", "shares"),
    [
        (2, 8, None, ["0,1,2,3", "4,5,6,7"]),
        (3, 8, None, ["0,1", "2,3", "4,5"]),
        (2, 4, "4,5,6,7", ["4,5", "6,7"]),
        (3, 2, None, ["0", "1", "0"]),
    ],
)
def test_jobs_share_the_accelerators(jobs, devices, visible, shares, monkeypatch):
    monkeypatch.setattr(ranks, "devices", lambda: devices)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    width = ranks.Ranks(jobs=jobs).count
    assert [share["CUDA_VISIBLE_DEVICES"] for share in claiming.shares(jobs, width)] == shares


def test_jobs_on_a_cpu_share_its_threads_unless_a_user_says_how_many(monkeypatch):
    monkeypatch.setattr(claiming.os, "cpu_count", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [share["OMP_NUM_THREADS"] for share in claiming.shares(2, 0)] == ["3", "3"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert claiming.shares(2, 0)[0]["OMP_NUM_THREADS"] == "5"


def test_a_batch_is_planned_for_the_share_of_a_job():
    """And the ranks of a job, which are told of its share, do not divide it again."""
    planned = ranks.Ranks(devices=8, jobs=4)
    assert planned.of("auto") == 2
    assert ranks.Ranks(devices=2).auto == planned.auto == "ddp"
    assert '"devices": 2, "jobs": 1' in planned.handed_down()[ranks.HANDED]


def test_a_step_that_none_can_be_made_beside_has_the_threads_of_all_launches(tmp_path, model, monkeypatch):
    import torch

    stages = {
        "world": WORLD,
        "sft": {"model": {"model_name_or_path": model}, "data": "$world/sft"},
        "dpo": {"model": {"model_name_or_path": "$sft"}, "data": "$world/gold"},
        "kto": {"model": {"model_name_or_path": "$sft"}, "data": "$world/gold"},
        "report": {},
    }
    steps = Recipe.load(str(write_recipe(tmp_path, stages))).steps
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    for name, value in claiming.shares(2, 0)[0].items():
        monkeypatch.setenv(name, value)
    for step in steps:
        claiming.spread(step, steps)
    assert threads == [6, 6, 3, 3, 6]
