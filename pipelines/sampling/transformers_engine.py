"""Sampling from a policy, and the log-probabilities of what was sampled, with transformers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import trl
from accelerate import PartialState

from trimtab.pipelines.recording import watch
from trimtab.pipelines.sampling import generation
from trimtab.pipelines.trainers.seams.engines import whole_models

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

# Sampling from the policy itself, so that its log-probabilities are those of the sampler. transformers would
# otherwise keep the 50 likeliest tokens only.
DEFAULTS = {
    "do_sample": True,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "max_new_tokens": generation.MAX_NEW_TOKENS,
}
LOGITS = 1 << 27  # numbers in one block of logits: 512 MiB in float32


def load_tokenizer(model: trl.ModelConfig) -> PreTrainedTokenizerBase:
    """The policy's tokenizer, padding on the left."""
    from transformers import AutoTokenizer

    name, revision = model.model_name_or_path, model.model_revision
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load(model: trl.ModelConfig) -> PreTrainedModel:
    """The policy in evaluation mode on this rank's device, without what its own file recommends for generation.

    transformers would fill in from there what `settings` leaves open, such as a repetition penalty.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    dtype = model.dtype if model.dtype in ("auto", None) else getattr(torch, model.dtype)
    with whole_models():
        policy = AutoModelForCausalLM.from_pretrained(
            model.model_name_or_path,
            revision=model.model_revision,
            dtype=dtype,
            attn_implementation=model.attn_implementation,
        )
    policy.generation_config = GenerationConfig()
    return policy.to(PartialState().device).eval()


def settings(model: trl.ModelConfig, tokenizer: PreTrainedTokenizerBase, options: dict[str, Any]) -> GenerationConfig:
    """The generation config: our defaults, then the recipe's `generate` block; its stop tokens go with the model's."""
    from transformers import AutoConfig, GenerationConfig

    name, revision = model.model_name_or_path, model.model_revision
    try:
        recommended = GenerationConfig.from_pretrained(name, revision=revision)
    except OSError:  # it has no file of them
        recommended = GenerationConfig.from_model_config(AutoConfig.from_pretrained(name, revision=revision))
    written = {key: value for key, value in options.items() if value is not None}
    stops = [tokenizer.eos_token_id]
    stops += generation.listed(recommended.eos_token_id) + generation.listed(written.get("eos_token_id"))
    written["eos_token_id"] = sorted({stop for stop in stops if stop is not None})
    written["pad_token_id"] = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id  # is masked
    return GenerationConfig(**DEFAULTS | written)


@torch.no_grad()
def generate(
    policy: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> list[list[int]]:
    """One completion per prompt, as token ids up to and including the first stop.

    A prompt stands as often as completions of it are wanted.
    """
    ids, mask = _pad(prompts, config.pad_token_id, policy.device, left=True)
    stopping = {"tokenizer": tokenizer} if config.stop_strings else {}
    out = policy.generate(input_ids=ids, attention_mask=mask, generation_config=config, **stopping)
    return [row[: end(row, config, tokenizer)] for row in out[:, ids.shape[1] :].tolist()]


def end(completion: Sequence[int], config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many tokens a completion has up to its first stop, the stop included; None where there is no stop.

    A stop is one of the `eos_token_id`, or the token with which the text comes to have one of the `stop_strings`.
    """
    tokens = set(config.eos_token_id)
    stop = next((count for count, token in enumerate(completion, start=1) if token in tokens), None)
    words = generation.listed(config.stop_strings)

    def has_word(count: int) -> bool:
        said = tokenizer.decode(completion[:count], skip_special_tokens=False)
        return any(word in said for word in words)

    longest = len(completion) if stop is None else stop
    if not words or not has_word(longest):
        return stop
    return bisect_left(range(longest), True, key=has_word)


@torch.no_grad()
def logprobs(
    policy: PreTrainedModel, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> list[list[float]]:
    """log pi(token | prompt, tokens before) of every completion token, in nats, at temperature 1.

    One forward pass per block of rows whose logits fit in a fixed amount of memory, sorted by length.
    """
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    logprobs_of: list[list[float]] = [[] for _ in lengths]
    start = 0
    while start < len(order):
        longest = max(len(completions[i]) for i in order[start : start + 256]) + 1
        rows = max(1, min(256, LOGITS // (longest * policy.config.get_text_config().vocab_size)))
        block = order[start : start + rows]
        start += rows
        before, before_mask = _pad([prompts[i] for i in block], 0, policy.device, left=True)
        after, after_mask = _pad([completions[i] for i in block], 0, policy.device, left=False)
        mask = torch.cat([before_mask, after_mask], dim=1)
        with watch.part(f"in the log-probabilities of {len(block)} of {len(order)} completions"):
            logits = policy(
                input_ids=torch.cat([before, after], dim=1),
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                logits_to_keep=after.shape[1] + 1,
            ).logits[:, :-1]
            chosen = logits.float().log_softmax(-1).gather(-1, after.unsqueeze(-1)).squeeze(-1).tolist()
        for row, i in enumerate(block):
            logprobs_of[i] = chosen[row][: len(completions[i])]
    return logprobs_of


def log_ratios(policy: PreTrainedModel, rows: Any) -> list[float]:
    """log pi(completion) - log `policy`(completion) of every row of a `sample` dataset, in nats; pi sampled it.

    Each rank does its share, and all get everything.
    """
    from accelerate.utils import gather_object

    distributed = PartialState()
    places = list(range(distributed.process_index, len(rows), distributed.num_processes))
    share = rows.select(places)
    others = logprobs(policy, share["prompt_ids"], share["completion_ids"])
    pairs = zip(places, share["logprobs"], others, strict=True)
    ratios = [(place, sum(sampled) - sum(other)) for place, sampled, other in pairs]
    return [ratio for _, ratio in sorted(gather_object(ratios))]


def _pad(rows: Sequence[Sequence[int]], value: int, device: Any, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), value, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, where] = torch.tensor(row, dtype=torch.long)
        mask[index, where] = 1
    return ids.to(device), mask.to(device)
