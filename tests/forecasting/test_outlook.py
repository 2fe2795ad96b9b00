"""The forecast of a plan: for this machine and others, with the change by which a step fits."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from conftest import PAIR_ROWS, ROOT, SFT_ROWS
from planned import on_rows
from run_steps import run_recipe, write_recipe

from trimtab.pipelines.forecasting import cures, machines, outlook
from trimtab.pipelines.forecasting.forecast import Forecaster
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Launch, Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.scripts import run

SEVEN = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000}  # fmt: skip


@pytest.fixture
def large(tmp_path, write):
    """A recipe that trains a model of seven billion parameters in float32."""
    train = {"per_device_train_batch_size": 8, "max_length": 2048, "max_steps": 10, "gradient_checkpointing": True}
    corpus = write("sft.jsonl", SFT_ROWS)
    stages = {
        "scratch": {"corpus": corpus, "vocab_size": 32000, "max_length": 2048, "config": SEVEN},
        "sft": {"model": {"model_name_or_path": "$scratch"}, "data": corpus, "train": train},
        "dpo": {"model": {"model_name_or_path": "$sft"}, "data": write("p.jsonl", PAIR_ROWS), "train": train},
    }
    return str(write_recipe(tmp_path, stages))


def test_a_budget_is_a_number_of_machines_that_are_known():
    eight = machines.budget("8xh100")
    assert (eight.count, eight.on_cpu, eight.memory) == (8, False, 79 * 2**30)
    assert machines.budget("2xa100-40").count == 2
    assert machines.budget("cpu").on_cpu
    with pytest.raises(RecipeError, match=r"8xh10: no such machine, did you mean 'h100'\? \(known: cpu, h100"):
        machines.budget("8xh10")


def test_a_plan_for_another_machine_says_what_fits_and_what_would(large, capsys):
    assert run.main([large, "--plan", "--budget", "8xh100"]) == 0
    said = capsys.readouterr().out
    assert "forecast for 8 x h100 (published, not measured)" in said
    assert " x 8\n" in said  # ranks of the batch
    assert "accelerate_configs/ddp.yaml" in said
    assert "dpo (and sft) needs" in said
    assert "`accelerate: fsdp2` makes it" in said
    assert run.main([large, "--plan", "--budget", "8xh9"]) == 2


def test_a_cure_is_the_forecast_of_the_changed_setting(large):
    step = Recipe.load(large).steps[1]
    forecaster = Forecaster(machines.budget("1xh100"))
    setting = forecaster.setting(step, Launch(1, on_cpu=False))
    assert not forecaster.under(step, setting).fits
    cure = cures.cheapest(forecaster, step, setting)
    assert cure.changes == ("accelerate: zero3_offload",)
    assert cure.forecast.fits
    several = Forecaster(machines.budget("8xh100"))
    one, eight = (several.of_batch(step, Launch(8, on_cpu=False), rows) for rows in (1, 8))
    assert one.peak < eight.peak


def test_a_smaller_batch_is_proposed_where_only_the_batch_is_too_large(write, model, tmp_path):
    train = {"per_device_train_batch_size": 1024, "max_length": 512, "gradient_checkpointing": True}
    rows = [{"text": "a b c d " * 200}] * 2
    stages = {"sft": {"model": {"model_name_or_path": model}, "data": write("t.jsonl", rows), "train": train}}
    step = Recipe.load(str(write_recipe(tmp_path, stages))).steps[0]
    forecaster = Forecaster(machines.budget("cpu"))
    whole = forecaster.forecast(step, Launch(1, on_cpu=True))
    tight = Forecaster(replace(forecaster.machine, memory=0.9 * whole.peak))
    cure = cures.cheapest(tight, step, tight.setting(step, Launch(1, on_cpu=True)))
    assert cure.changes == ("train: {per_device_train_batch_size: 512, gradient_accumulation_steps: 2}",)
    given = replace(step, batch=replace(step.batch, is_given=True))  # as `batch_size` says it
    cure = cures.cheapest(tight, given, tight.setting(step, Launch(1, on_cpu=True)))
    assert cure.changes == ("train: {per_device_train_batch_size: 512}",)


def test_a_batch_that_is_cut_by_tokens_takes_what_so_many_tokens_take(write, model, tmp_path):
    rows = [{"text": "a b c d " * count} for count in (10, 10, 10, 100)]
    stages = {"sft": {"model": {"model_name_or_path": model}, "data": write("t.jsonl", rows * 64), "batch_size": 256,
                      "tokens_per_batch": 2000, "train": {"max_length": 512}}}  # fmt: skip
    path = str(write_recipe(tmp_path, stages))
    forecaster, launch = Forecaster(machines.budget("cpu")), Launch(1, on_cpu=True)
    step, half, whole = (
        Recipe.load(path, [f"stages.sft.tokens_per_batch={tokens}"]).steps[0] for tokens in (2000, 1000, 10**6)
    )
    (learned,) = forecaster.work(step, forecaster.setting(step, launch))[0].passes
    mean, most = learned.tokens_of_call()
    assert most == 2000
    assert mean == pytest.approx(2000)
    forecasts = [Forecaster(machines.budget("cpu")).forecast(one, launch) for one in (half, step, whole)]
    assert forecasts[0].peak < forecasts[1].peak < forecasts[2].peak
    assert forecasts[0].tokens == pytest.approx(forecasts[2].tokens)
    tight = Forecaster(replace(forecaster.machine, memory=0.999 * forecasts[1].peak))
    cure = cures.cheapest(tight, step, tight.setting(step, launch))
    assert cure.changes[0].startswith("tokens_per_batch: ")


def test_steps_that_share_a_launch_pay_for_one_and_hold_what_was_left(tmp_path, write, model):
    train = {"max_steps": 1, "max_length": 64}
    sft = {"kind": "sft", "model": {"model_name_or_path": model}, "data": write("s.jsonl", SFT_ROWS), "train": train}
    worlds = {name: {"kind": "world", "seed": seed} for seed, name in enumerate("bc")}
    steps = Recipe.load(str(write_recipe(tmp_path, {"a": sft, **worlds}))).steps
    launches = dict.fromkeys("abc", Launch(1, on_cpu=True))
    machine = machines.budget("cpu")
    apart = outlook.Outlook(steps, launches, machine)
    together = outlook.Outlook(steps, launches, machine, lambda *_: "one")
    assert apart.seconds - together.seconds == pytest.approx(2 * machine.launch)
    assert [one.launch > 0 for one in together.forecasts.values()] == [True, False, False]
    assert "in 1 launch\n" in together.text(tmp_path)
    assert "in 3 launches\n" in apart.text(tmp_path)
    assert together.forecasts["b"].peak > apart.forecasts["b"].peak
    assert together.forecasts["a"].peak == apart.forecasts["a"].peak


@pytest.mark.parametrize(
    ("train", "asked"),
    [
        ({"num_train_epochs": 3}, 2),
        ({"max_steps": 1, "per_device_train_batch_size": 1}, 1),
        ({"sync_ref_model": True}, 24),
    ],
)
def test_the_reference_of_dpo_is_asked_once_where_the_training_meets_every_row(train, asked, write, model, tmp_path):
    dpo = {"model": {"model_name_or_path": model}, "data": write("p.jsonl", PAIR_ROWS[:2]), "train": train}
    step = Recipe.load(str(write_recipe(tmp_path, {"dpo": dpo}))).steps[0]
    forecaster = Forecaster(machines.budget("cpu"))
    work, _ = forecaster.work(step, forecaster.setting(step, Launch(1, on_cpu=True)))
    assert work.passes[1].rows == asked
    assert len(work.held) == (1 if asked == 2 else 2)  # the policy, and the reference


@pytest.fixture(scope="module")
def done(tmp_path_factory, model):
    """A recipe with one training, which is done, and its step."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SFT_ROWS))
    train = {"max_steps": 2, "per_device_train_batch_size": 4, "max_length": 64}
    sft = {"model": {"model_name_or_path": model}, "data": str(folder / "sft.jsonl"), "train": train}
    return str(folder / "recipe.yaml"), run_recipe(folder, {"sft": sft})["sft"]


def test_a_step_keeps_its_forecast_beside_what_was_measured(done):
    recipe, step = done
    record = artifacts.read_done(step.dir)
    ahead = record["forecast"]
    assert 0.2 < ahead["peak_bytes"] / record["peak_bytes"] < 5  # of a process that runs tests
    assert record["metrics"]["train/num_tokens"] <= ahead["tokens"] < 1.5 * record["metrics"]["train/num_tokens"]
    assert ahead["disk_bytes"] > sum(file["bytes"] for file in record["files"].values()) / 2
    text = outlook.text(Recipe.load(recipe), [step], lambda step: None)
    assert " measured (" in text
    assert "forecast for" not in text


def test_a_plan_of_what_is_done_imports_nothing_heavy(done):
    code = (
        "import sys; from trimtab.scripts import run; run.main([sys.argv[1], '--plan']); "
        "print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, done[0]]
    out = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_a_stage_from_outside_is_forecast_by_the_class_of_its_arguments(tmp_path, write, model, monkeypatch):
    source = (
        "from dataclasses import dataclass\nfrom typing import Annotated\nimport trl\n"
        "from trimtab.pipelines.data.forms import PREFERENCE, Data\n"
        "from trimtab.pipelines.stages import TrainerStage\n\n\n"
        "@dataclass(kw_only=True)\nclass Mine(TrainerStage):\n    model: trl.ModelConfig\n"
        "    data: Annotated[Data, PREFERENCE]\n    train: trl.DPOConfig\n"
    )
    (tmp_path / "outside_stage.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    dpo = {**on_rows(write, model)["dpo"], "model": {"model_name_or_path": model}}
    stages = {"dpo": dpo, "mine": {**dpo, "kind": "outside_stage.Mine"}}
    forecaster = Forecaster(machines.budget("cpu"))
    recipe = Recipe.load(str(write_recipe(tmp_path, stages)))
    ours, theirs = (forecaster.forecast(step, Launch(1, on_cpu=True)) for step in recipe.steps)
    assert theirs.record() == ours.record()


def test_every_machine_has_its_numbers():
    for name in machines.table():
        assert machines.budget(name).prices.keys() == machines.budget("cpu").prices.keys(), name
    assert yaml.safe_load(machines.FILE.read_text())["machines"]
