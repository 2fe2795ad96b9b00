"""The metrics of a training that was interrupted anywhere are those of an undisturbed one, times apart."""

import signal

import pytest
from conftest import PAIR_ROWS
from interruptions import again_in, in_folder, interrupted, timeless
from launches import weights
from outputs import metrics_of
from short_trainings import TRAIN

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import runner

LOGGED = {"max_steps": 5, "logging_steps": 3, "save_steps": 100}  # no checkpoint of a step that is logged
STEP = "training.watchdog.Watchdog.on_step_begin"


@pytest.fixture
def blocks(model, write, lists):
    """A stage of each trainer, by its kind."""
    source = {"model": {"model_name_or_path": model}, "train": {**TRAIN, **LOGGED}}
    pairs = {**source, "data": write("pairs.jsonl", PAIR_ROWS)}
    return {
        "dpo": {**pairs, "eval_data": pairs["data"], "audit": {"overlap": "warn"}},
        "prefer": {**source, "data": str(lists["ranked"].output)},
    }


@pytest.mark.parametrize("kind", ["dpo", pytest.param("prefer", marks=pytest.mark.slow)])
def test_a_training_that_was_interrupted_logs_what_an_undisturbed_one_does(kind, blocks, tmp_path, capsys):
    """Between two logs, in its last step, and, where there is one, in its last evaluation."""
    stages = {kind: blocks[kind]}
    whole = in_folder(tmp_path, "undisturbed", stages)[kind]
    recipe = again_in(tmp_path)
    assert "step 2" in interrupted(recipe, signal.SIGTERM, STEP, 2, capsys)
    assert "step 4" in interrupted(recipe, signal.SIGINT, STEP, 2, capsys)
    assert "step 5" in interrupted(recipe, signal.SIGTERM, STEP, 1, capsys)
    if "eval_data" in blocks[kind]:
        interrupted(recipe, signal.SIGTERM, "training.fit._evaluate", 1, capsys)
    assert runner.train(str(recipe)) == 0
    (step,) = Recipe.load(str(recipe)).steps
    assert weights(step) == weights(whole)
    assert timeless(step) == timeless(whole)
    assert sum("train/train_loss" in row for row in timeless(step)) == 1
    assert metrics_of(step)["train/loss"] == metrics_of(whole)["train/loss"]


def test_the_record_of_a_training_that_begins_anew_has_nothing_of_the_one_before(blocks, tmp_path, capsys):
    stages = {"dpo": {**blocks["dpo"], "train": {**TRAIN, "save_strategy": "no"}}}
    whole = in_folder(tmp_path, "undisturbed", stages)["dpo"]
    recipe = again_in(tmp_path)
    interrupted(recipe, signal.SIGTERM, "training.fit._evaluate", 1, capsys)
    assert runner.train(str(recipe)) == 0
    (step,) = Recipe.load(str(recipe)).steps
    assert timeless(step) == timeless(whole)


def test_a_step_that_samples_logs_once_however_often_it_is_started(model, write, tmp_path, capsys):
    """Rows without a step, as what the audit has counted."""
    rows = [{"prompt": [{"role": "user", "content": content}]} for content in ("say a", "say b", "", "say a")]
    sample = {"model": {"model_name_or_path": model}, "prompts": write("prompts.jsonl", rows), "sample_batch_size": 1,
              "audit": {"empty_prompt": "drop"}, "generate": {"max_new_tokens": 3}}  # fmt: skip
    whole = in_folder(tmp_path, "undisturbed", {"sample": sample})["sample"]
    recipe = again_in(tmp_path)
    for call in (1, 2):
        interrupted(recipe, signal.SIGTERM, "sampling.sampler.sample", call, capsys)
    (step,) = Recipe.load(str(recipe)).steps
    with (step.dir / "metrics.jsonl").open("a") as file:
        file.write('{"torn": ')  # by a kill
    assert runner.train(str(recipe)) == 0
    assert timeless(whole)
    assert timeless(step) == timeless(whole)
