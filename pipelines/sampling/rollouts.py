"""The completions of a policy that is being trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import GenerationConfig

from trimtab.pipelines.sampling.sampler import Request, can_sample, sample

WIDTH = 256  # completions that are sampled at once


def draw(
    policy: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    config: GenerationConfig,
    any_rank: Callable[[bool], bool] | None = None,
) -> list[list[int]] | None:
    """A completion of each prompt by its seed, as token ids; None where the sampler does not do what is asked.

    With `any_rank`, which says whether any rank says yes, all of them take every pass through the policy together.
    """
    can = can_sample(policy, config, max(map(len, prompts)))
    if any_rank is not None and any_rank(not can):
        return None
    if not can:
        return None
    requests = [Request(tuple(prompt), seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    return [completion.ids for completion in sample(policy, requests, config, WIDTH, any_rank)]
