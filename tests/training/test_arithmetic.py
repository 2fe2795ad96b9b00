"""What a training is told of an accelerator: one device for a process, TF32, references in bfloat16."""

from types import SimpleNamespace

import pytest
import torch
import trl
from tiny_trainers import CPU, grpo_trainer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.pipelines.sampling import rollouts
from trimtab.pipelines.trainers.seams.trl import token_logps
from trimtab.pipelines.trainers.seeded_rollouts import SeededRollouts
from trimtab.pipelines.training import arguments, arithmetic, inputs
from trimtab.rewards import _arithmetic


@pytest.mark.parametrize(("seen", "kept"), [(0, 0), (1, 1), (8, 1)])
def test_a_process_that_sees_many_devices_trains_on_one(seen, kept, tmp_path):
    """Of eight, transformers would make a DataParallel, and a batch of eight times the rows."""
    args = trl.SFTConfig(str(tmp_path), **CPU, per_device_train_batch_size=4)
    args._n_gpu = seen
    inputs.policy(trl.ModelConfig(model_name_or_path="model"), args)
    assert args.n_gpu == kept
    assert args.train_batch_size == 4


@pytest.mark.parametrize("there", [False, True])
def test_trainings_in_float32_have_tf32_where_it_is(there, monkeypatch, tmp_path):
    monkeypatch.setattr("transformers.utils.is_torch_tf32_available", lambda: there)
    step = SimpleNamespace(dir=tmp_path, name="sft", seed=0)
    assert arguments.settings(step).get("tf32", False) == there


def test_positions_are_whole_where_products_are_of_tf32():
    config = AutoConfig.for_model("llama", hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                  num_attention_heads=2, vocab_size=10)  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    arithmetic.keep_positions_exact(model)
    seen, precision = [], torch.backends.cuda.matmul
    watched = {"positions": model.model.rotary_emb, "products": model.model.layers[0].mlp.up_proj}
    for name, module in watched.items():
        module.register_forward_pre_hook(lambda *_, name=name: seen.append((name, precision.fp32_precision)))
    before, precision.fp32_precision = precision.fp32_precision, "tf32"
    try:
        model(torch.arange(5)[None])
        assert precision.fp32_precision == "tf32"
    finally:
        precision.fp32_precision = before
    assert seen == [("positions", "ieee"), ("products", "tf32")]


@pytest.mark.parametrize("moving", [False, True])
def test_a_reference_that_stays_is_held_in_bfloat16_and_says_the_same(moving, model, prompts, tmp_path):
    train = {"bf16": True, "beta": 0.1, "sync_ref_model": moving, "num_generations": 2, "max_completion_length": 4,
             "per_device_train_batch_size": 2}  # fmt: skip
    trainer = grpo_trainer(trl.GRPOTrainer, model, prompts, tmp_path, train)
    ids = torch.arange(12)[None] + 5
    given = ids, torch.ones_like(ids), torch.ones_like(ids).bool()
    with torch.no_grad(), trainer.accelerator.autocast():
        before, _ = token_logps(trainer.ref_model, *given)
        arithmetic.settle(trainer)
        after, _ = token_logps(trainer.ref_model, *given)
    assert torch.equal(before, after)
    dtypes = {
        module.weight.dtype for module in trainer.ref_model.base_model.modules() if isinstance(module, nn.Linear)
    }
    assert dtypes == {torch.float32 if moving else torch.bfloat16}
    assert {value.dtype for value in trainer.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("in_bf16", [False, True])
def test_a_rollout_is_in_the_precision_of_its_training(in_bf16, model, prompts, tmp_path, monkeypatch):
    """Else the ratio of a training in float32 to its sampler would begin apart from 1."""

    class Trainer(SeededRollouts, trl.GRPOTrainer):
        sampler = staticmethod(rollouts.draw)

    monkeypatch.setattr(_arithmetic, "in_bfloat16", lambda device: True)
    train = {"bf16": in_bf16, "num_generations": 2, "max_completion_length": 4, "per_device_train_batch_size": 2}
    trainer = grpo_trainer(Trainer, model, prompts, tmp_path, train)
    seen = set()
    trainer.model.register_forward_pre_hook(lambda *_: seen.add(torch.is_autocast_enabled("cpu")))
    assert len(trainer._drawn([[5, 6, 7], [5, 6, 7]])) == 2
    assert seen == {in_bf16}
