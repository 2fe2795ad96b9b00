"""Mode `sample`: four completions of every prompt, of lengths as answers have, by `generate` and by our sampler."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import torch
import trl
from clock import Measured, Side, timed
from material import Material
from transformers import GenerationConfig

from trimtab.pipelines.sampling import sampler, transformers_engine

COMPLETIONS = 4  # of a prompt
PROMPT = 500  # tokens of a prompt at most
ANSWER = 90  # tokens of a completion on average: a random model stops by chance, at one of so many tokens
LONGEST = 128  # tokens of a completion at most
CHECKED = 16  # completions whose log-probabilities are computed again


def sample(material: Material, batch: int, steps: int) -> list[Side]:
    """A `generate` loop without log-probabilities, in the data's order and sorted, and ours with them."""
    policy = transformers_engine.load(trl.ModelConfig(model_name_or_path=material.path, dtype="float32"))
    plain = transformers_engine.load(trl.ModelConfig(model_name_or_path=material.path, dtype="float32"))
    prompts = [material.prompt(row) for row in material.pairs]
    prompts = [prompt for prompt in prompts if len(prompt) <= PROMPT]
    words = len(material.tokenizer)
    stops = sorted(Random(0).sample(range(8, words), words // ANSWER))
    options = transformers_engine.DEFAULTS | {"max_new_tokens": LONGEST, "eos_token_id": stops, "pad_token_id": 0}
    config = GenerationConfig(**options)
    loops = {
        "generate, 64 rows": (prompts, 64),
        "generate, 64 rows, sorted": (sorted(prompts, key=len), 64),
        "generate, 16 rows, sorted": (sorted(prompts, key=len), 16),
    }
    sides = [
        Side(name, is_ours=False, run=lambda order=order, rows=rows: _loop(plain, order, config, rows))
        for name, (order, rows) in loops.items()
    ]
    ordered = sorted(prompts, key=len)
    ours = [
        Side(f"trimtab, {width} rows", is_ours=True, run=lambda width=width: _ours(policy, ordered, config, width))
        for width in (64, 256)
    ]
    return [*sides, *ours]


def _loop(policy: Any, prompts: list[list[int]], config: GenerationConfig, rows: int) -> Measured:
    measured = Measured(work=0.0)
    torch.manual_seed(0)
    with timed(measured):
        for start in range(0, len(prompts), rows // COMPLETIONS):
            part = prompts[start : start + rows // COMPLETIONS]
            asked = list(itertools.chain.from_iterable([prompt] * COMPLETIONS for prompt in part))
            completions = transformers_engine.generate(policy, asked, config, None)
            measured.work += sum(map(len, completions)) / 1000
    return measured


def _ours(policy: Any, prompts: list[list[int]], config: GenerationConfig, width: int) -> Measured:
    measured = Measured()
    requests = [
        sampler.Request(tuple(prompt), (0, place, copy))
        for place, prompt in enumerate(prompts)
        for copy in range(COMPLETIONS)
    ]
    assert sampler.can_sample(policy, config, max(map(len, prompts)))
    with timed(measured):
        completions = sampler.sample(policy, requests, config, width)
    measured.work = sum(len(completion.ids) for completion in completions) / 1000
    chosen = Random(0).sample(range(len(requests)), CHECKED)
    asked, said = [list(requests[i].prompt) for i in chosen], [completions[i].ids for i in chosen]
    again = itertools.chain.from_iterable(transformers_engine.logprobs(policy, asked, said))
    sampled = itertools.chain.from_iterable(completions[i].logprobs for i in chosen)
    measured.gap = max(abs(ours - theirs) for ours, theirs in zip(sampled, again, strict=True))
    return measured
