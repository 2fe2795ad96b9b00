"""The sampler draws from the policy itself: its tokens, log-probabilities, seeds and stops."""

import math
from collections import Counter

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from trimtab.pipelines.sampling import sampler, transformers_engine
from trimtab.pipelines.sampling.sampler import Request, can_sample, sample
from trimtab.pipelines.trainers.seams.trl import add_fused_lm_head

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 60, "max_position_embeddings": 128, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "vocab_size": 60, "bos_token_id": 1,
        "eos_token_id": 2}  # fmt: skip
FAMILIES = {"llama": SIZES, "qwen3": SIZES | {"head_dim": 8}, "gemma": SIZES | {"head_dim": 8}, "gpt2": GPT2}
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], [5, 6, 7, 8, 9, 10, 11, 12, 13, 20], [3], [7, 8, 9], [30, 31] * 9]


def make(family: str = "llama"):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family])).eval()
    with torch.no_grad():  # a random model is nearly uniform: this one is not
        model.get_output_embeddings().weight.mul_(8)
    model.generation_config = GenerationConfig()
    add_fused_lm_head(model)
    return model


def settings(**keys):
    asked = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 20}
    return GenerationConfig(**asked | {"eos_token_id": [2, 4], "pad_token_id": 0} | keys)


def requests(count: int = 3):
    return [Request(prompt, (7, index, k)) for index, prompt in enumerate(PROMPTS) for k in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_without_chance_it_says_what_generate_says(family):
    model, config = make(family), settings(do_sample=False, temperature=None, top_p=None, top_k=None)
    ids, mask = transformers_engine._pad(PROMPTS, 0, model.device, left=True)
    theirs = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, ids.shape[1] :]
    assert can_sample(model, config, 18)
    for row, completion in zip(theirs.tolist(), sample(model, requests(1), config, width=3), strict=True):
        assert row[: len(completion.ids)] == completion.ids
        assert completion.ids[-1] in (2, 4) or len(completion.ids) == 20


@pytest.mark.parametrize("width", [2, 5, 64])
def test_log_probabilities_are_those_of_a_fresh_pass_and_seeds_those_of_the_completion(width):
    model, config = make(), settings()
    assert can_sample(model, config, 18)
    completions = sample(model, requests(), config, width)
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    fresh = transformers_engine.logprobs(model, prompts, [completion.ids for completion in completions])
    for completion, expected in zip(completions, fresh, strict=True):
        assert completion.logprobs == pytest.approx(expected, abs=2e-6)
    assert [one.ids for one in completions] == [one.ids for one in sample(model, requests(), config, 4)]
    alone = sample(model, requests()[9:12], config, 1)
    assert [one.ids for one in alone] == [one.ids for one in completions[9:12]]
    assert len({tuple(one.ids) for one in completions}) > 10


def test_tokens_come_as_often_as_the_policy_says():
    model, config = make(), settings(max_new_tokens=1, top_k=12, temperature=1.3)
    assert can_sample(model, config, 18)
    count = 4000
    drawn = sample(model, [Request(PROMPTS[0], (1, k)) for k in range(count)], config, width=1000)
    tokens = Counter(completion.ids[0] for completion in drawn)
    with torch.no_grad():
        scores = model(torch.tensor([PROMPTS[0]])).logits[0, -1] / 1.3
    kept = scores.topk(12).indices.tolist()
    shares = scores[kept].softmax(-1).tolist()
    assert set(tokens) <= set(kept)
    expected = {token: count * share for token, share in zip(kept, shares, strict=True)}
    squares = sum((tokens[token] - often) ** 2 / often for token, often in expected.items())
    assert squares < 31.3  # 99.9 % of chi-square with 11 degrees of freedom


@pytest.mark.parametrize(
    "keys", [{"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.6}, {"min_p": 0.2}, {"top_p": 0.9, "temperature": 1.5}]
)
def test_scores_are_shaped_as_by_transformers_own_processors(keys):
    model, config = make(), settings(**keys)
    ours = torch.randn(4, 60, generator=torch.Generator().manual_seed(3)) * 4
    theirs = ours.clone()
    for processor in model._get_logits_processor(config, input_ids_seq_length=1):
        theirs = processor(torch.zeros(4, 1, dtype=torch.long), theirs)
    for warper in sampler._warpers(config):
        ours = warper(None, ours)
    assert torch.equal(ours, theirs)


def test_no_stop_before_the_least_number_of_tokens():
    model, config = make(), settings(min_new_tokens=9)
    drawn = sample(model, requests(8), config, width=16)
    lengths = [len(completion.ids) for completion in drawn]
    assert min(lengths) >= 10 or 20 in lengths
    assert min(lengths) > 9
    assert all(token not in (2, 4) for completion in drawn for token in completion.ids[:9])
    assert all(math.isfinite(logprob) for completion in drawn for logprob in completion.logprobs)


def test_what_it_does_not_know_is_left_to_generate():
    model = make()
    for keys in (
        {"repetition_penalty": 1.2},
        {"no_repeat_ngram_size": 3},
        {"typical_p": 0.5},
        {"stop_strings": ["a"]},
    ):
        assert not can_sample(model, settings(**keys), 10)
    assert can_sample(model, settings(top_p=0.5, min_p=0.1), 10)
    torch.manual_seed(0)
    windowed = AutoModelForCausalLM.from_config(AutoConfig.for_model("mistral", **SIZES, sliding_window=16))
    assert not can_sample(windowed, settings(), 10)
    assert can_sample(windowed, settings(max_new_tokens=6), 10)


def test_a_prompt_is_read_once_and_who_has_ended_is_not_computed():
    model, config = make(), settings(max_new_tokens=40)
    assert can_sample(model, config, 18)
    seen = []
    hook = model.get_input_embeddings().register_forward_hook(lambda module, ids, output: seen.append(ids[0].numel()))
    drawn = sample(model, requests(8), config, width=10)
    hook.remove()
    said = sum(len(completion.ids) for completion in drawn)
    assert sum(seen) < 1.5 * said + 3 * sum(map(len, PROMPTS))
