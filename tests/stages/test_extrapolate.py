"""The stage `extrapolate`: what it leaves of two models, and what it refuses before and while it runs."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from model_folders import assert_close, expected, load, moved, random, save
from run_steps import run_recipe, write_recipe
from safetensors.torch import save_file

from trimtab.pipelines.algorithms.weights import SINGLE
from trimtab.scripts import train


def another(model, folder, scale=1e-3):
    """The model with every weight moved."""
    shutil.copytree(model, folder)
    save_file(moved(load(folder), scale), folder / SINGLE, metadata={"format": "pt"})
    return folder


def test_the_stage(model, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    new = another(model, tmp_path / "new")
    step = run_recipe(tmp_path, {"extrapolate": {"new": str(new), "previous": model, "momentum": 0.5}})["extrapolate"]
    wanted = expected(load(new), load(Path(model)), 0.5)
    assert_close(load(step.output), wanted)
    metrics = json.loads((step.dir / "done.json").read_text())["metrics"]
    assert metrics["tensors"] == len(wanted)
    assert metrics["relative_step"] == pytest.approx(metrics["step_norm"] / metrics["weight_norm"])
    policy = AutoModelForCausalLM.from_pretrained(step.output)
    assert policy.dtype == torch.float32
    assert policy.state_dict().keys() >= wanted.keys()
    torch.testing.assert_close(policy.get_input_embeddings().weight.double(), wanted["model.embed_tokens.weight"])
    assert (
        AutoTokenizer.from_pretrained(step.output).chat_template == AutoTokenizer.from_pretrained(model).chat_template
    )


def test_the_stage_extrapolates_what_a_step_above_makes(model, tmp_path):
    new = another(model, tmp_path / "new")
    stages = {
        "first": {"kind": "extrapolate", "new": str(new), "previous": model, "momentum": 0},
        "second": {"kind": "extrapolate", "new": "$first", "previous": model},
    }
    steps = run_recipe(tmp_path, stages)
    for name, tensor in load(new).items():
        assert torch.equal(load(steps["first"].output)[name].view(torch.int32), tensor.view(torch.int32)), name
    assert_close(load(steps["second"].output), expected(load(new), load(Path(model)), 0.3))


@pytest.fixture
def message(tmp_path, capsys):
    """Runs the stage, expects exit code 2 and one line, and returns it."""

    def message(**options):
        assert train.main([str(write_recipe(tmp_path, {"extrapolate": options}, wandb=False))]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1
        return error

    return message


def test_the_stages_errors(message, model, tmp_path):
    new = str(another(model, tmp_path / "new"))
    assert "stages.extrapolate.momentum: expected a number of at least 0 and below 1, got 1.0" in message(
        new=new, previous=model, momentum=1
    )
    assert "stages.extrapolate.new: no such folder: /nowhere" in message(new="/nowhere", previous=model)
    (tmp_path / "empty").mkdir()
    empty = str(tmp_path / "empty")
    assert f"stages.extrapolate.previous: {empty} is no complete model" in message(new=new, previous=empty)
    other = save(tmp_path / "other", {"w": random(3)})
    assert "stages.extrapolate.previous: " in (error := message(new=new, previous=str(other)))
    assert f"lacks 1 tensors of {other}: w" in error
    assert "stages.extrapolate.previous: required key is missing" in message(new=new)
    assert not (tmp_path / "runs").exists()


def test_the_stage_refuses_a_step_that_is_lost_in_rounding(message, model, tmp_path):
    from transformers import AutoModelForCausalLM

    folders = [another(model, tmp_path / name, scale) for name, scale in (("a", 0.0), ("b", 1e-6))]
    for folder in folders:
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    error = message(new=str(folders[1]), previous=str(folders[0]))
    assert "stages.extrapolate: the step from" in error
    assert "train and save in float32" in error
