"""The micro-batch that a recipe leaves open: the largest for which a device is forecast to have room."""

import psutil
import pytest
from conftest import SFT_ROWS
from run_steps import run_recipe, write_recipe

from trimtab.pipelines.forecasting import machines, micro_batch
from trimtab.pipelines.forecasting.forecast import Forecaster
from trimtab.pipelines.planning.recipe import Launch, Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.scripts import run

ONE_B = {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
         "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000}  # fmt: skip
SIZE = "per_device_train_batch_size"


@pytest.fixture
def billion(tmp_path, write):
    """A recipe that trains a billion parameters on rows of 2,048 tokens, 128 of them a step."""
    corpus = write("sft.jsonl", [{"text": "word " * 3000}] * 200)
    stages = {
        "scratch": {"corpus": corpus, "vocab_size": 32000, "max_length": 2048, "config": ONE_B},
        "sft": {
            "model": {"model_name_or_path": "$scratch"},
            "data": corpus,
            "batch_size": 128,
            "train": {"max_length": 2048, "max_steps": 10, "packing": True},
        },
    }
    return str(write_recipe(tmp_path, stages))


@pytest.mark.parametrize(("budget", "ranks"), [("1xh100", 1), ("8xh100", 8)])
def test_it_is_the_largest_divisor_that_fits(billion, budget, ranks):
    machine, launch = machines.budget(budget), Launch(ranks, on_cpu=False)
    step = Recipe.load(billion).steps[1]
    size = micro_batch.largest(step, launch, machine)
    fitting, larger = (Forecaster(machine).of_batch(step, launch, rows).peak for rows in (size, 2 * size))
    assert 8 < size < 128
    assert fitting <= micro_batch.FILL * machine.memory < larger


def test_a_plan_shows_what_fits_on_the_machine_that_it_is_for(billion, capsys):
    planned = {}
    for budget in ("1xh100", "1xa100-40"):
        assert run.main([billion, "--plan", "--budget", budget]) == 0
        (line,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("sft ")][:1]
        planned[budget] = line
    large, small = planned["1xh100"], planned["1xa100-40"]
    assert large[2] == small[2]  # the fingerprint
    assert large[4:6] == small[4:6] == ["128", "="]
    assert int(large[6]) > int(small[6])


def test_a_recipe_that_says_a_size_keeps_it(billion):
    step = Recipe.load(billion, [f"stages.sft.train.{SIZE}=2"]).steps[1]
    assert micro_batch.largest(step, Launch(1, on_cpu=False), machines.budget("1xh100")) is None
    assert micro_batch.fitted(step, Launch(1, on_cpu=False), machines.budget("1xh100")) is step


def test_a_step_is_made_with_what_fits_and_is_the_same_step(model, tmp_path, write, monkeypatch):
    stages = {
        "sft": {"model": {"model_name_or_path": model}, "data": write("s.jsonl", SFT_ROWS * 4), "batch_size": 8,
                "train": {"max_steps": 2}},
    }  # fmt: skip
    path = write_recipe(tmp_path, stages)
    step = Recipe.load(str(path)).steps[0]
    assert micro_batch.fitted(step, None).batch.per_device == 8
    memory = psutil.virtual_memory()._replace(total=2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    run_recipe(tmp_path, stages)
    record = artifacts.read_done(step.dir)
    assert record["fingerprint"] == step.fingerprint
    assert record["options"]["train"][SIZE] == 1
    assert record["options"]["train"]["gradient_accumulation_steps"] == 8
