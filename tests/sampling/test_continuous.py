"""Sampling by transformers' continuous batching: what it draws, by which seed, and what it cannot do."""

import math
from collections import Counter

import pytest
import torch
import trl
from outputs import rows_of
from run_steps import refused, run_recipe
from transformers import AutoModelForCausalLM, GenerationConfig

from trimtab.pipelines.sampling import continuous_engine, transformers_engine
from trimtab.pipelines.sampling.continuous_engine import _Engine

GENERATE = {"max_new_tokens": 6}


def block(model, prompts, **options):
    return {"model": {"model_name_or_path": model}, "prompts": prompts, "engine": "continuous", **options}


def test_without_chance_it_draws_what_the_sampler_draws(model, prompts, tmp_path):
    likeliest = {"generate": {**GENERATE, "do_sample": False}, "num_generations": 1}
    steps = run_recipe(tmp_path, {
        "continuous": {"kind": "sample", **block(model, prompts, sample_batch_size=3, **likeliest)},
        "sampler": {"kind": "sample", **block(model, prompts, engine="transformers", **likeliest)},
    })  # fmt: skip
    ours, theirs = (rows_of(step) for step in steps.values())
    assert len(ours) > 3
    for row, other in zip(ours, theirs, strict=True):
        assert row["completion_ids"] == other["completion_ids"]
        assert row["truncated"] == other["truncated"]
        assert row["logprobs"] == pytest.approx(other["logprobs"], abs=1e-5)


def test_tokens_follow_the_policy_and_a_part_its_seed(model):
    config = GenerationConfig(
        do_sample=True, max_new_tokens=1, temperature=0.5, top_k=0, eos_token_id=[2], pad_token_id=0
    )
    engine = _Engine(None, trl.ModelConfig(model), config, 512)
    drawn = [list(engine.answers([[5, 6, 7]] * 2000, seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model)(torch.tensor([[5, 6, 7]])).logits[0, -1]
    expected = (logits / 0.5).softmax(-1) * 4000
    counts = Counter(ids[0] for part in (drawn[0], drawn[2]) for ids in part)
    squares = sum((counts[token] - many) ** 2 / many for token, many in enumerate(expected.tolist()))
    freedom = len(expected) - 1
    assert abs(squares - freedom) < 4 * math.sqrt(2 * freedom)


def test_a_request_that_is_given_up_is_an_error(model, monkeypatch):
    config = GenerationConfig(do_sample=False, max_new_tokens=4, eos_token_id=[2], pad_token_id=0)

    class Step:
        path = ("stages", "sample")

    engine = _Engine(Step(), trl.ModelConfig(model), config, 4)
    next(engine.answers([[5]], 1))
    monkeypatch.setattr(engine.policy, "forward", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(continuous_engine.RecipeError, match=r"given up a completion: .*engine: transformers"):
        list(engine.answers([[5]], 1))


def test_keys_that_it_would_drop_are_refused(model, prompts, tmp_path, capsys):
    stages = {"sample": block(model, prompts, generate={**GENERATE, "min_p": 0.1})}
    message = "stages.sample.generate.min_p: is not among the keys that continuous batching knows: do_sample, "
    assert message in refused(tmp_path, stages, capsys)
    assert transformers_engine.DEFAULTS.keys() - {"do_sample"} <= set(continuous_engine.KNOWN)
