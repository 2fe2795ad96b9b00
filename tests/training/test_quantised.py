"""Adapters on weights of four bits (QLoRA), where bitsandbytes is installed: they leave a whole model in float32."""

import pytest
import torch
from conftest import PAIR_ROWS, SFT_ROWS
from run_steps import run_recipe
from safetensors.torch import load_file
from short_trainings import LORA, TRAIN

from trimtab.pipelines.training import fit

bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")


@pytest.mark.parametrize(("kind", "rows"), [("sft", SFT_ROWS), ("dpo", PAIR_ROWS)])
def test_adapters_learn_on_four_bits_and_are_merged_whole(kind, rows, model, write, tmp_path, monkeypatch):
    trained, save = [], fit.save

    def seen(trainer, *args):
        trained.append(trainer.model)
        save(trainer, *args)

    monkeypatch.setattr(fit, "save", seen)
    of_model = {"model_name_or_path": model, "load_in_4bit": True, **LORA}
    block = {"kind": kind, "model": of_model, "data": write("rows.jsonl", rows), "train": TRAIN}
    step = run_recipe(tmp_path, {"trained": block})["trained"]
    linears = [layer for layer in trained[0].modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    assert {layer.weight.dtype for layer in linears} == {torch.uint8}
    start, weights = load_file(f"{model}/model.safetensors"), load_file(step.output / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    moved = {name for name in start if name in weights and not torch.equal(start[name], weights[name])}
    assert moved
    assert all("proj" in name for name in moved)  # nothing else was rounded
