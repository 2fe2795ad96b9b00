"""`generate` of a policy that is being trained, done by our sampler wherever that does all that is asked."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from trimtab.pipelines.sampling.sampler import Request, can_sample, sample


def sample_instead(policy: Any, width: int) -> None:
    """Makes `policy.generate` sample up to `width` completions at once by our sampler, in place.

    It takes prompts padded on the left, and returns them with the completions behind, as transformers' does. Where it
    is given more than ids, a mask and a configuration, or the sampler does not do what that says, transformers' own
    samples. Seeds come from torch's random state, so that a training that goes on draws what it would have drawn.
    """
    theirs = policy.generate

    def generate(
        self: Any,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "generation_config": generation_config}
        if input_ids is None or attention_mask is None or generation_config is None or kwargs:
            return theirs(**{key: value for key, value in given.items() if value is not None}, **kwargs)
        config = _with_defaults(generation_config, self.generation_config)
        if not can_sample(self, config, input_ids.shape[1]):
            return theirs(**given)
        prompts = [ids[seen].tolist() for ids, seen in zip(input_ids, attention_mask.bool(), strict=True)]
        seeds = torch.randint(1 << 62, (len(prompts),)).tolist()
        requests = [Request(prompt, (seed,)) for prompt, seed in zip(prompts, seeds, strict=True)]
        completions = [torch.tensor(one.ids) for one in sample(self, requests, config, width)]
        padded = pad_sequence(completions, batch_first=True, padding_value=config.pad_token_id or 0)
        return torch.cat([input_ids, padded.to(input_ids.device)], dim=1)

    policy.generate = types.MethodType(generate, policy)


def _with_defaults(config: GenerationConfig, defaults: GenerationConfig) -> GenerationConfig:
    """The configuration, with what it leaves open from the model's own, as transformers fills it in."""
    return GenerationConfig(**defaults.to_diff_dict() | config.to_diff_dict())
