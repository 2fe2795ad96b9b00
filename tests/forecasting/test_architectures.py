"""Sizes of models from their configurations: equal to those of models that are built."""

import pytest
import torch
import transformers
from short_trainings import LORA

from trimtab.pipelines.forecasting import architectures

LLAMA = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 64}


def built(config, made_by=transformers.AutoModelForCausalLM, **more):
    return made_by.from_config(transformers.AutoConfig.for_model(**config, **more))


@pytest.mark.parametrize(
    "config", [LLAMA, {**LLAMA, "tie_word_embeddings": True}, GPT2], ids=["llama", "tied", "gpt2"]
)
def test_parameters_are_those_of_the_model_that_is_built(config):
    assert architectures.of_config(config).parameters == built(config).num_parameters()
    scores = built(config, transformers.AutoModelForSequenceClassification, num_labels=1)
    assert architectures.of_config(config, "score").parameters == scores.num_parameters()


def test_parameters_of_a_llama_in_closed_form():
    width, inside, layers, vocabulary = 16, 40, 3, 64
    attention = 2 * width**2 + 2 * width * 8  # 2 of 4 heads have keys and values
    layer = attention + 3 * width * inside + 2 * width
    model = architectures.of_config(LLAMA)
    assert model.parameters == layers * layer + 2 * vocabulary * width + width
    assert model.multiplied == layers * (attention + 3 * width * inside) + vocabulary * width
    assert model.cached == 2 * 2 * 4


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj"), None])
def test_adapters_have_the_parameters_that_peft_gives_them(targets):
    import peft

    config = peft.LoraConfig(r=LORA["lora_r"], target_modules=list(targets) if isinstance(targets, tuple) else targets,
                             task_type="CAUSAL_LM")  # fmt: skip
    adapted = peft.get_peft_model(built(LLAMA), config)
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert architectures.of_config(LLAMA).adapters(LORA["lora_r"], targets) == trainable


def test_what_a_token_leaves_in_a_layer_is_what_autograd_keeps_of_it():
    model, tokens = built(LLAMA, attn_implementation="sdpa"), 32
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(torch.arange(tokens)[None])
    numbers = sum(kept.values()) / 4 / tokens / 3
    assert architectures.of_config(LLAMA).inside == pytest.approx(numbers, rel=0.25)
