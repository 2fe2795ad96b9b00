"""Passes that train nothing compute as trainings do on an accelerator: here on a CPU that is taken for one."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig

from trimtab.pipelines.sampling import sampler, transformers_engine
from trimtab.pipelines.trainers.seams.trl import add_fused_lm_head
from trimtab.rewards import _arithmetic, _packed_attention
from trimtab.rewards._forward import Forward
from trimtab.rewards._packing import pack, packs

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 128, "pad_token_id": 0,
         "eos_token_id": 2}  # fmt: skip
CPU = torch.device("cpu")
ROWS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, *range(20, 30)], [5, 6, 7, 8, 9, 10, 11, 12, 13, 40], [30, 31, 32]]


@pytest.fixture
def accelerator(monkeypatch):
    """This CPU is taken for an accelerator with bfloat16."""
    monkeypatch.setattr(_arithmetic, "in_bfloat16", lambda device: True)


def make(cls=AutoModelForCausalLM, **sizes):
    torch.manual_seed(0)
    return cls.from_config(AutoConfig.for_model("llama", **SIZES, **sizes)).eval()


def batch():
    return transformers_engine._pad(ROWS, 0, CPU, left=False)


@torch.no_grad()
def test_rounded_weights_give_the_numbers_of_a_training_in_bfloat16(accelerator):
    ids, mask = batch()
    plain = make()
    with torch.autocast("cpu", torch.bfloat16):
        trained = plain(input_ids=ids, attention_mask=mask).logits
    model = _arithmetic.rounded(make(), CPU)
    with _arithmetic.passing(CPU):
        assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, trained)
    weights = [module.weight for module in model.base_model.modules() if isinstance(module, nn.Linear)]
    assert {weight.dtype for weight in weights} == {torch.bfloat16}
    assert model.lm_head.weight.dtype == model.model.norm.weight.dtype == torch.float32


def test_a_cpu_computes_in_float32():
    model = _arithmetic.rounded(make(), CPU)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    with _arithmetic.passing(CPU):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("asked", "expected"), [(None, True), ("float32", False)])
def test_float32_can_be_asked_for(asked, expected, monkeypatch):
    monkeypatch.setattr("transformers.utils.is_torch_bf16_gpu_available", lambda: True)
    monkeypatch.setenv(_arithmetic.ASKED, asked) if asked else monkeypatch.delenv(_arithmetic.ASKED, raising=False)
    assert _arithmetic.in_bfloat16(torch.device("cuda")) == expected


def test_rows_are_packed_in_a_training_in_bfloat16_and_kernels_get_16_bits(monkeypatch):
    """float32 weights under autocast: the trial allows for rounding, and positions leave nothing in float32."""
    seen = set()
    plain = _packed_attention.Packing.attention

    def attention(self, base, module, query, key, value, **kwargs):
        seen.update((query.dtype, key.dtype, value.dtype))
        return plain(self, base, module, query, key, value, **kwargs)

    monkeypatch.setattr(_packed_attention.Packing, "attention", attention)
    ids, mask = batch()
    model = make()
    with torch.autocast("cpu", torch.bfloat16):
        expected = model.model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
        assert packs(model)
        packed = model.model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
    assert seen == {torch.bfloat16}
    assert float((packed - expected).detach().norm() / expected.detach().norm()) < 0.02


def test_sampled_log_probabilities_are_those_of_the_training_to_the_rounding(accelerator):
    model = make()
    with torch.no_grad():
        model.lm_head.weight.mul_(8)
    model.generation_config = GenerationConfig()
    add_fused_lm_head(model)
    pack(_arithmetic.rounded(model, CPU))
    asked = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 30}
    config = GenerationConfig(**asked, eos_token_id=[2], pad_token_id=0)
    assert sampler.can_sample(model, config, 20)
    requests = [sampler.Request(row, (0, place)) for place, row in enumerate(ROWS)]
    drawn = sampler.sample(model, requests, config, 4)
    fresh = transformers_engine.logprobs(model, ROWS, [completion.ids for completion in drawn])
    for completion, expected in zip(drawn, fresh, strict=True):
        assert completion.logprobs == pytest.approx(expected, abs=0.1)  # nats of a token
        assert abs(sum(completion.logprobs) - sum(expected)) < 0.5  # what `prefer` allows


def test_a_reward_keeps_its_last_bits(accelerator):
    model = make(AutoModelForSequenceClassification, num_labels=1)
    with torch.no_grad():
        model.score.weight.mul_(50)
    _arithmetic.exact(model.score, CPU)
    forward = Forward(_arithmetic.rounded(model, CPU))
    assert forward.packs
    scores = forward(ROWS, 1000)
    assert all(torch.tensor(score[0]).bfloat16().item() != score[0] for score in scores)
