"""Rounds of LoRA combined from their adapters, against merged and extrapolated models; and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from model_folders import assert_close, expected, load, random, save
from safetensors.torch import save_file

from trimtab.pipelines.algorithms import adapters, momentum, weights
from trimtab.pipelines.algorithms.extrapolation import extrapolate


@pytest.fixture
def small_pieces(monkeypatch):
    """Tensors of a few thousand numbers come in many pieces too."""
    monkeypatch.setattr(weights, "PIECE", 64)


@pytest.fixture(scope="module")
def rounds(model, tmp_path_factory):
    """Three rounds of momentum with LoRA: the adapters, and hat_3 and theta_3 by merging and extrapolating."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("rounds")
    theta = hat = Path(model)
    found = {"base": theta, "adapters": []}
    for at in range(3):
        torch.manual_seed(at)
        config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], init_lora_weights=False,
                            rank_pattern={"down_proj": 2}, alpha_pattern={r"layers\.1\.mlp\.down_proj": 5},
                            use_rslora=at == 1, task_type="CAUSAL_LM")  # fmt: skip
        adapter = folder / f"adapter{at}"
        get_peft_model(AutoModelForCausalLM.from_pretrained(theta, dtype=torch.float32), config).save_pretrained(
            adapter
        )
        start = AutoModelForCausalLM.from_pretrained(theta, dtype=torch.float32)
        previous, hat = hat, folder / f"hat{at}"
        PeftModel.from_pretrained(start, adapter).merge_and_unload().save_pretrained(hat)
        theta = folder / f"theta{at}"
        extrapolate(hat, previous, theta, 0.3)
        found["adapters"].append(adapter)
    return {**found, "hat": hat, "previous": previous, "theta": theta}


def test_a_merged_lora_against_float64(rounds):
    new, previous = load(rounds["hat"]), load(rounds["previous"])
    assert_close(load(rounds["theta"]), expected(new, previous, 0.3))


@pytest.mark.usefixtures("small_pieces")
def test_combining_adapters_is_iterating_merged_models(rounds, tmp_path):
    from transformers import AutoModelForCausalLM

    factors = {"hat": momentum.coefficients(0.3, 3), "theta": momentum.coefficients(0.3, 4)[:3]}
    for name, numbers in factors.items():
        adapters.combine(rounds["base"], rounds["adapters"], numbers, tmp_path / name)
        assert_close(load(tmp_path / name), load(rounds[name]))
    AutoModelForCausalLM.from_pretrained(tmp_path / "theta")


def test_adapters_that_cannot_be_combined(rounds, tmp_path):
    def refused(**changes):
        shutil.rmtree(tmp_path / "adapter", ignore_errors=True)
        shutil.copytree(rounds["adapters"][0], tmp_path / "adapter")
        path = tmp_path / "adapter" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        with pytest.raises(ValueError, match="adapter") as caught:
            adapters.combine(rounds["base"], [tmp_path / "adapter"], [1.0], tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    for changes in ({"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"fan_in_fan_out": True},
                    {"init_lora_weights": "pissa"}, {"trainable_token_indices": [1]}):  # fmt: skip
        assert f"is no plain LoRA: {next(iter(changes))}=" in refused(**changes)
    assert "is no LoRA adapter but IA3" in refused(peft_type="IA3")
    with pytest.raises(ValueError, match="3 adapters have 1 weights"):
        adapters.combine(rounds["base"], rounds["adapters"], [1.0], tmp_path / "out")


def test_an_adapter_of_another_model(rounds, tmp_path):
    other = save(tmp_path / "other", {"w": random(3)})
    with pytest.raises(ValueError, match=r"which .*other lacks"):
        adapters.combine(other, rounds["adapters"], [1.0] * 3, tmp_path / "out")
    adapter = tmp_path / "adapter"
    shutil.copytree(rounds["adapters"][0], adapter)
    save_file({"base_model.model.model.embed_tokens.weight": random(3, 3)}, adapter / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"embed_tokens\.weight has no LoRA factors of a linear layer"):
        adapters.combine(rounds["base"], [adapter], [1.0], tmp_path / "out")
