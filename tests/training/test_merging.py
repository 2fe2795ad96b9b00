"""Adapters as models: merged into their base wherever a recipe names a model, or refused in the plan."""

import json
import shutil
from pathlib import Path

import pytest
import short_trainings
import torch
from conftest import PAIR_ROWS
from huggingface_hub import constants
from launches import trained
from outputs import rows_of
from peft import LoraConfig, PeftModel, get_peft_model
from run_steps import refused, run_recipe, write_recipe
from safetensors.torch import load_file
from short_trainings import TRAIN
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.training.merging import MERGED

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}


@pytest.fixture(scope="session")
def adapter(model, tmp_path_factory):
    """A LoRA of the tiny model with random factors, with a tokenizer as trainers save it."""
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    get_peft_model(base, LoraConfig(**LORA, task_type="CAUSAL_LM")).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def merged(model, adapter, tmp_path_factory):
    """The same as a complete model, made with peft alone."""
    folder = tmp_path_factory.mktemp("merged") / "merged"
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def pairs(model, write):
    return {"model": {"model_name_or_path": model}, "data": write("pairs.jsonl", PAIR_ROWS), "train": TRAIN}


def edited(adapter, folder, **settings):
    """A copy of an adapter with other settings."""
    shutil.copytree(adapter, folder)
    written = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**written, **settings}))
    return str(folder)


def sample(model, prompts):
    return {"kind": "sample", "model": {"model_name_or_path": model}, "prompts": prompts, "num_generations": 1,
            "generate": {"max_new_tokens": 5}}  # fmt: skip


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def test_an_adapter_is_the_model_that_it_makes(adapter, merged, model, prompts, pairs, tmp_path):
    stages = {}
    for name, policy in (("adapter", adapter), ("whole", merged)):
        stages |= {
            f"{name}-sample": sample(policy, prompts),
            f"{name}-dpo": {"kind": "dpo", **pairs, "model": {"model_name_or_path": policy}},
            f"{name}-on": {"kind": "extrapolate", "new": policy, "previous": model, "momentum": 0.5},
        }
    steps = run_recipe(tmp_path, stages)
    ours, theirs = (rows_of(steps[f"{name}-sample"]) for name in ("adapter", "whole"))
    assert [row["completion_ids"] for row in ours] == [row["completion_ids"] for row in theirs]
    assert [row["logprobs"] for row in ours] == [row["logprobs"] for row in theirs]
    for kind in ("dpo", "on"):
        ours, theirs = (weights(steps[f"{name}-{kind}"].output) for name in ("adapter", "whole"))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    (folder,) = (tmp_path / "runs" / "steps" / MERGED).glob("*-*")  # merged once for all steps
    assert all(torch.equal(value, weights(merged)[key]) for key, value in weights(folder / "output").items())


def test_an_adapter_without_a_tokenizer_has_its_bases(adapter, prompts, tmp_path):
    bare = shutil.copytree(adapter, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*", "chat_template*"))
    stages = {name: sample(str(policy), prompts) for name, policy in (("bare", bare), ("whole", adapter))}
    bare_rows, rows = map(rows_of, run_recipe(tmp_path, stages).values())
    assert [row["completion_ids"] for row in bare_rows] == [row["completion_ids"] for row in rows]


def test_a_new_lora_on_an_adapter_leaves_a_complete_model(adapter, pairs, tmp_path):
    block = {**pairs, "model": {"model_name_or_path": adapter, **short_trainings.LORA}}
    step = run_recipe(tmp_path, {"dpo": block})["dpo"]
    assert AutoModelForCausalLM.from_pretrained(step.output).config.model_type == "llama"


def test_a_classifiers_adapter_keeps_its_head(model, pairs, tmp_path):
    folder = tmp_path / "scores"
    base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32)
    classifier = get_peft_model(base, LoraConfig(**LORA, task_type="SEQ_CLS"))
    classifier.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    run_recipe(tmp_path, {"reward": {**pairs, "model": {"model_name_or_path": str(folder)}}})
    (made,) = (tmp_path / "runs" / "steps" / MERGED).glob("*-*")
    head = classifier.base_model.model.score.modules_to_save["default"].weight
    assert torch.equal(weights(made / "output")["score.weight"], head)


def test_the_base_is_part_of_what_an_adapter_is(adapter, model, prompts, tmp_path):
    base = shutil.copytree(model, tmp_path / "base")
    other = edited(adapter, tmp_path / "other", base_model_name_or_path=str(base))

    def fingerprint():
        return Recipe.load(str(write_recipe(tmp_path, {"sample": sample(other, prompts)}))).steps[0].fingerprint

    before = fingerprint()
    (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    changed = fingerprint()
    assert before != changed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "is an adapter of kind PREFIX_TUNING, which no base can be merged with"),
        ({"base_model_name_or_path": None}, "names no base_model_name_or_path"),
        ({"base_model_name_or_path": "../gone/model"}, "its base ../gone/model is not here: write where it is"),
        ({"base_model_name_or_path": "org/gone"}, "org/gone cannot be looked at: the hub cannot be reached"),
    ],
)
def test_what_cannot_be_merged_is_refused_in_the_plan(settings, message, adapter, prompts, tmp_path, capsys):
    wrong = edited(adapter, tmp_path / "wrong", **settings)
    said = refused(tmp_path, {"sample": sample(wrong, prompts)}, capsys)
    assert "stages.sample.model.model_name_or_path: " in said
    assert message in said


def test_a_quantised_base_and_an_adapters_adapter_are_refused(adapter, model, prompts, tmp_path, capsys):
    base = shutil.copytree(model, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes"}}))
    on_quantised = edited(adapter, tmp_path / "quantised", base_model_name_or_path=str(base))
    assert "is quantised: write the model that it was quantised from" in refused(
        tmp_path, {"sample": sample(on_quantised, prompts)}, capsys
    )
    on_adapter = edited(adapter, tmp_path / "second", base_model_name_or_path=adapter)
    assert "is an adapter of an adapter" in refused(tmp_path, {"sample": sample(on_adapter, prompts)}, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["cpu", "fsdp2", "zero3"])
def test_two_ranks_load_what_one_has_merged(config, adapter, merged, pairs, tmp_path):
    outputs = []
    for name, policy in (("adapter", adapter), ("whole", merged)):
        folder = tmp_path / name
        folder.mkdir()
        block = {
            **pairs,
            "train": {**TRAIN, "per_device_train_batch_size": 2},
            "model": {"model_name_or_path": policy},
        }
        outputs.append(trained(write_recipe(folder, {"dpo": block}, wandb=False), config=config)["dpo"].output)
    ours, theirs = map(weights, outputs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_an_adapter_of_the_hub_is_taken_from_the_cache(adapter, model, merged, prompts, tmp_path, monkeypatch):
    """Base and adapter lie as the hub's client keeps them, and the hub cannot be asked."""
    commit = "a" * 40
    lora = edited(adapter, tmp_path / "lora", base_model_name_or_path="org/base")
    for name, folder in {"base": model, "lora": lora}.items():
        repository = tmp_path / "hub" / f"models--org--{name}"
        shutil.copytree(folder, repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    steps = run_recipe(tmp_path, {"hub": sample("org/lora", prompts), "whole": sample(merged, prompts)})
    ours, theirs = (rows_of(steps[name]) for name in ("hub", "whole"))
    assert [row["completion_ids"] for row in ours] == [row["completion_ids"] for row in theirs]
