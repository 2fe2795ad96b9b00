"""What a device may change and what it may not: the same tests on a CPU and, with `-m gpu`, on an accelerator.

python -m pytest -m gpu tests/test_gpu.py
"""

import math
import os
from functools import partial

import pytest
import torch
import trl
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from trimtab.pipelines.algorithms import losses
from trimtab.pipelines.sampling import sampler, transformers_engine
from trimtab.pipelines.trainers.lists import ListTrainer
from trimtab.pipelines.trainers.seams.trl import add_fused_lm_head
from trimtab.pipelines.trainers.whole_steps import DPOTrainer, SFTTrainer
from trimtab.pipelines.training.compute_once import compute_once
from trimtab.rewards import _arithmetic, _packed_attention
from trimtab.rewards._packing import pack, packed, packs

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA: without it no product is deterministic
HAS_GPU = torch.cuda.is_available()
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="there is no GPU")]
ON_CPU = pytest.param("cpu", marks=pytest.mark.skipif(HAS_GPU, reason="trainings take the GPU"))
BOTH = pytest.mark.parametrize("device", [ON_CPU, pytest.param("cuda", marks=NEEDS_GPU)])
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 128, "pad_token_id": 0,
         "eos_token_id": 2}  # fmt: skip
ROWS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, *range(20, 30)], [5, 6, 7, 8, 9, 10, 11, 12, 13, 40], [30, 31, 32]]
TRAIN = {"report_to": "none", "bf16": True, "gradient_checkpointing": False, "per_device_train_batch_size": 2,
         "logging_steps": 1, "learning_rate": 1e-3, "disable_tqdm": True}  # fmt: skip
PROMPTS = ["say a b and then " * (1 + number % 4) for number in range(4)]


@pytest.fixture
def policy(device, monkeypatch):
    """A policy that is not trained, and not nearly uniform; on a CPU as if that were an accelerator."""
    if device == "cpu":
        monkeypatch.setattr(_arithmetic, "in_bfloat16", lambda device: True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZES)).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(8)
    model.generation_config = GenerationConfig()
    add_fused_lm_head(model)
    pack(model)
    return _arithmetic.rounded(model, torch.device(device)).to(device)


def drawn(policy, width=4):
    asked = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 30}
    config = GenerationConfig(**asked, eos_token_id=[2], pad_token_id=0)
    assert sampler.can_sample(policy, config, 20)
    return sampler.sample(policy, [sampler.Request(row, (0, place)) for place, row in enumerate(ROWS)], config, width)


def settings(config, device, folder, **keys):
    return config(output_dir=str(folder), use_cpu=device == "cpu", dataloader_pin_memory=device != "cpu",
                  **{"save_strategy": "no", **TRAIN, **keys})  # fmt: skip


@BOTH
def test_a_policy_is_where_it_computes_and_in_its_dtypes(device, policy):
    assert {value.device.type for value in policy.parameters()} == {device}
    assert policy.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert policy.model.norm.weight.dtype == policy.lm_head.weight.dtype == torch.float32


@BOTH
def test_completions_are_those_of_their_seeds(device, policy):
    assert [one.ids for one in drawn(policy)] == [one.ids for one in drawn(policy)]


@BOTH
def test_log_probabilities_of_the_sampler_are_those_of_a_training(device, policy):
    completions = drawn(policy)
    ids = [completion.ids for completion in completions]
    trained = transformers_engine.logprobs(policy, ROWS, ids)
    for completion, expected in zip(completions, trained, strict=True):
        assert completion.logprobs == pytest.approx(expected, abs=0.1)  # nats of a token: docs/many-gpus.md
        assert abs(sum(completion.logprobs) - sum(expected)) < 0.5  # what `prefer` allows an answer


@BOTH
def test_packed_rows_are_padded_rows_to_the_rounding(device, monkeypatch):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZES)).to(device)
    ids, mask = transformers_engine._pad(ROWS, 0, model.device, left=False)
    kernels = []
    by_varlen = _packed_attention.Packing._by_varlen
    monkeypatch.setattr(
        _packed_attention.Packing, "_by_varlen", lambda *args: kernels.append(args) or by_varlen(*args)
    )
    with torch.autocast(device, torch.bfloat16), torch.no_grad():
        expected = model.model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()].float()
        assert packs(model)
        ours = model.model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()].float()
    assert (ours - expected).norm() / expected.norm() < 0.02
    assert bool(kernels) == (device == "cuda" and _packed_attention.varlen_attn is not None)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=NEEDS_GPU)])
def test_the_kernel_for_rows_of_different_lengths_attends_as_row_after_row(device, window):
    ids, mask = transformers_engine._pad(ROWS, 0, torch.device(device), left=False)
    packing = packed(ids, mask)
    tokens = len(packing.rows)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, tokens, 16, device=device).bfloat16() for heads in (4, 2, 2))
    ours = packing._by_varlen(query, key, value, None, window).float()
    expected = packing._by_segments(query, key, value, None, window).float()
    assert (ours - expected).norm() / expected.norm() < 0.02


@BOTH
def test_the_first_loss_of_dpo_is_ln_2(device, model, tmp_path):
    rows = Dataset.from_dict({"prompt": PROMPTS, "chosen": [" a a"] * 4, "rejected": [" b c b c"] * 4})
    trainer = DPOTrainer(model, args=settings(trl.DPOConfig, device, tmp_path), train_dataset=rows)
    compute_once(trainer)
    trainer.train()
    assert trainer.model.device.type == device
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)


@BOTH
def test_the_first_loss_on_stored_log_probabilities_is_ln_2(device, model, tmp_path, monkeypatch):
    if device == "cpu":
        monkeypatch.setattr(_arithmetic, "in_bfloat16", lambda device: True)
    reference = transformers_engine.load(trl.ModelConfig(model_name_or_path=model))
    rows = [{"prompt_ids": row, "completion_ids": [[40, 41, 2], [50, 51, 52, 2]]} for row in ROWS[:2]]
    for row in rows:
        stored = transformers_engine.logprobs(reference, [row["prompt_ids"]] * 2, row["completion_ids"])
        row["ref_logps"] = [sum(tokens) for tokens in stored]
    trainer = ListTrainer(loss=partial(losses.named("dpo"), beta=0.1), model=model,
                          args=settings(trl.SFTConfig, device, tmp_path, max_steps=1),
                          train_dataset=Dataset.from_list(rows))  # fmt: skip
    compute_once(trainer)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)


@BOTH
def test_a_training_that_goes_on_ends_with_the_same_weights(device, model, tmp_path):
    rows = Dataset.from_dict({"prompt": PROMPTS * 2, "completion": [f" a b {number}" for number in range(8)]})

    def trained(folder, checkpoint=None):
        args = settings(trl.SFTConfig, device, folder, max_steps=4, save_strategy="steps", save_steps=2)
        trainer = SFTTrainer(model, args=args, train_dataset=rows)
        compute_once(trainer)
        trainer.train(resume_from_checkpoint=checkpoint)
        return {name: value.detach().cpu() for name, value in trainer.model.named_parameters()}

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        whole = trained(tmp_path / "whole")
        resumed = trained(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-2"))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
