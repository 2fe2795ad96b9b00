"""Which steps share a launch, and that they are held by one launcher while they are made."""

import functools

import pytest
from conftest import SFT_ROWS
from run_steps import write_recipe

from trimtab.pipelines.planning import commands
from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.recording.locks import Lock, holder, of_folder
from trimtab.pipelines.running import grouping, locking


@pytest.fixture
def groups(tmp_path, model, write):
    """The names of the steps of each launch, of a recipe with these stages of small trainings."""
    train = {"max_steps": 2, "per_device_train_batch_size": 4, "gradient_checkpointing": False}
    sft = {"kind": "sft", "model": {"model_name_or_path": model}, "data": write("sft.jsonl", SFT_ROWS), "train": train}

    def grouped(extra=(), **stages):
        blocks = {name: {**sft, "seed": number, **block} for number, (name, block) in enumerate(stages.items())}
        path = str(write_recipe(tmp_path, blocks))
        steps = Recipe.load(path, ranks=Ranks(words=tuple(extra))).steps
        words = {step.name: commands.command(Recipe.load(path), step, extra) for step in steps}
        shared = grouping.keys(steps, words, functools.partial(commands.launch, extra=extra))
        names, position = [], 0
        while position < len(steps):
            together = grouping.group(steps[position:], shared)
            names.append([step.name for step in together])
            position += len(together)
        return names

    return grouped


def test_small_steps_that_are_launched_alike_share_a_launch(groups):
    assert groups(a={}, b={"accelerate": "cpu"}, c={}) == [["a", "b", "c"]]
    assert groups(a={}, b={"accelerate": "single"}, c={}) == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("engine", ["fsdp2", "zero2"])
def test_engines_that_keep_state_have_a_process_to_themselves(groups, engine):
    assert groups(a={"accelerate": engine}, b={"accelerate": engine}, c={}, d={}) == [["a"], ["b"], ["c", "d"]]
    assert groups(["--use_fsdp"], a={}, b={}) == [["a"], ["b"]]


def test_a_step_that_is_long_has_a_launch_of_its_own(groups):
    long = {"train": {"max_steps": 10**7, "per_device_train_batch_size": 4, "gradient_checkpointing": False}}
    assert groups(a={}, b=long, c={}, d={}) == [["a"], ["b"], ["c", "d"]]


def test_ranks_that_wait_for_each_other_differently_do_not_share(groups):
    waits = {"train": {"max_steps": 2, "per_device_train_batch_size": 4, "ddp_timeout": 60}}
    assert groups(a={}, b=waits) == [["a", "b"]]
    assert groups(["--num_processes", "2"], a={}, b=waits) == [["a"], ["b"]]


def test_what_another_process_makes_ends_the_group(tmp_path):
    worlds = {name: {"kind": "world", "seed": seed} for seed, name in enumerate("abc")}
    a, b, c = Recipe.load(str(write_recipe(tmp_path, worlds))).steps
    other = Lock(of_folder(b.dir), "another launcher")
    other.take()
    with locking.step_locks([a, b, c]) as locks:
        assert locks.steps == [a]
    other.release()
    with locking.step_locks([a, b, c]) as locks:
        assert locks.steps == [a, b, c]
        artifacts.fresh(a.dir)
        artifacts.publish(a.dir, {"fingerprint": a.fingerprint, "metrics": {}})
        locks.release_done()  # for those who wait for it
        assert [holder(of_folder(step.dir)) is None for step in (a, b, c)] == [True, False, False]
