"""Supervised fine-tuning: what it leaves behind, adapters that are merged, and a loss that is not a number."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from outputs import logits
from run_steps import broken, run_recipe
from safetensors.torch import load_file
from short_trainings import LORA, TRAIN, plan
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab.pipelines.planning import files
from trimtab.pipelines.recording import artifacts, tracking


def test_sft_leaves_a_complete_model_a_record_and_its_metrics(sft, tmp_path, model):
    step = run_recipe(tmp_path, {"sft": sft})["sft"]
    assert not torch.equal(logits(step.output), logits(model))
    assert AutoTokenizer.from_pretrained(step.output).chat_template
    assert not list(step.output.rglob("*.bin"))  # no pickle
    kept, given = (
        json.loads((Path(folder) / "config.json").read_text())["use_cache"] for folder in (step.output, model)
    )
    assert kept is given is True
    done = artifacts.read_done(step.dir)
    assert done["metrics"]["train/steps"] == 2
    assert done["world_size"] == 1
    assert done["peak_bytes"] > 1e8
    assert 0 < done["cpu_seconds"] < 2 * os.cpu_count() * done["seconds"]
    assert done["files"]["model.safetensors"]["sha256"] == files.content_hash(step.output / "model.safetensors")
    rows = tracking.read(step.dir / "metrics.jsonl")
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2]
    assert (step.view.parent / "sft").resolve() == step.dir.resolve()


def test_a_finished_step_is_not_run_again(sft, tmp_path):
    step = run_recipe(tmp_path, {"sft": sft})["sft"]
    before = (step.dir / "done.json").stat().st_mtime_ns
    run_recipe(tmp_path, {"sft": sft})
    assert (step.dir / "done.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_an_adapter_is_merged_into_a_complete_model(kind, sft, pairs, tmp_path, model):
    from peft import PeftModel

    block = sft if kind == "sft" else {**pairs, "kind": "dpo"}
    block = {**block, "model": {"model_name_or_path": model, **LORA}}
    step = run_recipe(tmp_path, {"lora": block})["lora"]
    assert not list(step.output.glob("adapter*"))
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, step.dir / "adapter").eval()
    with torch.no_grad():
        expected = adapted(input_ids=torch.arange(12)[None] + 20).logits
    torch.testing.assert_close(logits(step.output), expected, atol=1e-5, rtol=0)
    assert (logits(step.output) - logits(model)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("keep", "left"), [("final", set()), ("adapter", {"adapter"}), ("all", {"adapter", "checkpoints"})]
)
def test_what_is_kept_of_a_training_is_what_the_recipe_says(keep, left, sft, tmp_path, model):
    block = {**sft, "model": {"model_name_or_path": model, **LORA}, "train": {**TRAIN, "save_steps": 1}}
    step = run_recipe(tmp_path, {"sft": {**block, "keep": keep}})["sft"]
    assert {path.name for path in step.dir.iterdir()} & {"adapter", "checkpoints"} == left
    assert step.done
    assert any(name.startswith("adapter/") for name in artifacts.read_done(step.dir)["beside"]) == (keep != "final")
    assert plan(tmp_path, {"sft": block})["sft"].dir == step.dir  # it is no part of what the step is


@pytest.mark.parametrize("lora", [{}, LORA])
def test_a_model_is_kept_in_the_dtype_that_the_recipe_says(lora, sft, tmp_path, model):
    block = {**sft, "model": {"model_name_or_path": model, **lora}}
    whole = run_recipe(tmp_path, {"sft": block})["sft"]
    half = run_recipe(tmp_path, {"sft": {**block, "dtype": "bfloat16"}})["sft"]
    assert half.fingerprint != whole.fingerprint
    weights, rounded = (load_file(step.output / "model.safetensors") for step in (whole, half))
    assert all(torch.equal(value.bfloat16(), rounded[name]) for name, value in weights.items())
    assert rounded.keys() == weights.keys()
    assert AutoModelForCausalLM.from_pretrained(half.output, dtype="auto").dtype == torch.bfloat16


def test_a_loss_that_is_not_a_number_stops_the_run(sft, tmp_path, capsys):
    told = broken(tmp_path, {"sft": {**sft, "train": {**TRAIN, "learning_rate": 1e30, "max_steps": 6}}}, capsys)
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert f"{tmp_path}/recipe.yaml:5: stages.sft: FloatingPointError: " in line
    assert "is not a number at step" in line
    batch = re.search(r"The rows at hand are in (\S+/batch-0\.json)", line)[1]
    rows = json.loads(Path(batch).read_text())["rows"]
    assert len(rows) == TRAIN["per_device_train_batch_size"]
    assert all(row["input_ids"] for row in rows)
    assert "a bug" not in line
