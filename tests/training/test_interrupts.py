"""Ctrl-C and SIGTERM end a process with one sentence wherever it is, and the same command ends as if undisturbed."""

import itertools
import os
import signal
import time

import pytest
from conftest import SFT_ROWS
from interruptions import again_in, in_folder, interrupted
from launches import weights
from outputs import metrics_of, rows_of
from short_trainings import TRAIN

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import runner
from trimtab.pipelines.training import interrupts
from trimtab.pipelines.training.interrupts import Stopped

NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_raises_where_nobody_has_asked_for_it(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as raised, interrupts.heard():
        os.kill(os.getpid(), number)
    assert raised.value.number == number
    assert signal.getsignal(number) is before


def test_a_signal_that_is_noted_raises_later():
    with interrupts.heard():
        with interrupts.noted():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)  # at once: a terminal's and a launcher's are one
            assert interrupts.asked() == signal.SIGINT
        with pytest.raises(Stopped):
            interrupts.leave_if_asked()
    with interrupts.heard():
        assert not interrupts.asked()


@pytest.mark.parametrize("number", NUMBERS)
def test_a_second_signal_ends_at_once(number, monkeypatch):
    codes = []
    monkeypatch.setattr(interrupts.os, "_exit", codes.append)
    monkeypatch.setattr(interrupts, "TOGETHER", 0.0)
    with interrupts.heard(), interrupts.noted():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.001)
        os.kill(os.getpid(), number)
    assert codes == [128 + number]


def test_a_worker_that_is_forked_leaves_ctrl_c_to_its_parent():
    with interrupts.heard():
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_training_is_left_and_gone_on_with_everywhere(model, write, tmp_path, capsys):
    data = write("sft.jsonl", SFT_ROWS)
    train = {**TRAIN, "max_steps": 6, "save_steps": 4, "eval_strategy": "steps", "eval_steps": 3}
    sft = {"model": {"model_name_or_path": model}, "data": data, "eval_data": data, "train": train}
    stages = {"sft": {**sft, "audit": {"overlap": "warn"}}}
    whole = in_folder(tmp_path, "undisturbed", stages)["sft"]
    recipe = again_in(tmp_path)
    numbers = itertools.cycle(NUMBERS)
    for place, call, words in (
        ("training.fit.policy", 1, "sft was interrupted, and keeps what it has finished"),
        ("training.watchdog.Watchdog.on_step_begin", 2, "sft was interrupted and has a checkpoint of step 2"),
        ("training.watchdog.Watchdog.on_prediction_step", 1, "has a checkpoint of step 3"),
        ("training.checkpoints.write_mark", 1, "has a checkpoint of step 4"),
        ("training.watchdog.Watchdog.on_step_begin", 2, "has a checkpoint of step 6"),
        ("training.fit._evaluate", 1, "sft was interrupted, and keeps what it has finished"),
        ("recording.artifacts.publish", 1, "sft was interrupted, and keeps what it has finished"),
    ):
        assert words in interrupted(recipe, next(numbers), place, call, capsys)
    assert runner.train(str(recipe)) == 0
    (step,) = Recipe.load(str(recipe)).steps
    assert metrics_of(step)["train/resumed_from"] == 6
    assert weights(step) == weights(whole)


def test_sampling_and_scoring_keep_what_they_have_finished(model, prompts, tmp_path, capsys):
    stages = {
        "sample": {"model": {"model_name_or_path": model}, "prompts": prompts, "sample_batch_size": 4,
                   "generate": {"max_new_tokens": 3}},
        "score": {"completions": "$sample", "batch_size": 4,
                  "rewards": {"as": {"kind": "pattern", "regex": "a", "count": True}}},
    }  # fmt: skip
    whole = in_folder(tmp_path, "undisturbed", stages)
    recipe = again_in(tmp_path)
    steps = {step.name: step for step in Recipe.load(str(recipe)).steps}
    assert "sample was" in interrupted(recipe, signal.SIGTERM, "sampling.sampler.sample", 2, capsys)
    assert len(list((steps["sample"].dir / "parts").glob("rows-*.parquet"))) == 1
    assert "score was" in interrupted(recipe, signal.SIGINT, "scoring.asking.ask", 2, capsys)
    (journal,) = steps["score"].dir.parent.glob("scored/*/rank-0.jsonl")
    assert journal.read_text().count("score") == 4
    assert runner.train(str(recipe)) == 0
    for name, step in steps.items():
        assert rows_of(step) == rows_of(whole[name])
