"""Sampling from a policy, and the log-probabilities of what was sampled, with transformers."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import trl
from accelerate import PartialState
from tqdm.auto import tqdm

from trimtab.pipelines.recording import watch
from trimtab.pipelines.sampling import generation
from trimtab.pipelines.trainers.seams.engines import whole_models
from trimtab.pipelines.trainers.seams.trl import add_fused_lm_head, token_logps
from trimtab.rewards._arithmetic import passing, rounded
from trimtab.rewards._packing import pack

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
TOKENS = 1 << 14  # of all rows of a batch whose log-probabilities are computed
BLOCK = 1 << 13  # rows of a dataset that are in memory at a time


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
    add_fused_lm_head(policy)
    pack(policy)
    device = PartialState().device
    return rounded(policy, device).to(device).eval()


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
    with passing(policy.device):
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
    policy: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    label: str | None = None,
) -> list[list[float]]:
    """log pi(token | prompt, tokens before) of every completion token, in nats, at temperature 1.

    Batches have TOKENS tokens at most, but for what their padding would have. Rows with one prompt come into one. With
    a `label` a bar shows how far they are.
    """
    rows = [[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: (len(prompts[i]), prompts[i], len(rows[i])))
    logprobs_of: list[list[float]] = [[] for _ in rows]
    hidden = None if label and PartialState().is_main_process else True
    for batch in tqdm(_batches(order, rows), desc=f"    {label}", leave=False, mininterval=1, disable=hidden):
        ids, mask = _pad([rows[i] for i in batch], 0, policy.device, left=False)
        starts = torch.tensor([len(prompts[i]) for i in batch], device=policy.device)
        learned = mask.bool() & (torch.arange(ids.shape[1], device=policy.device) >= starts[:, None])
        part = watch.part(f"in the log-probabilities of {len(batch)} of {len(order)} completions")
        with part, whole_models(), passing(policy.device):  # as it was loaded
            chosen, _ = token_logps(policy, ids, mask, learned)
        for row, i in zip(chosen.tolist(), batch, strict=True):
            logprobs_of[i] = row[len(prompts[i]) : len(rows[i])]
    return logprobs_of


def _batches(order: Sequence[int], rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """The rows in their order, cut where one more would make more than TOKENS tokens."""
    batches: list[list[int]] = [[]]
    filled = 0
    for i in order:
        filled += len(rows[i])
        if filled > TOKENS and batches[-1]:
            batches.append([])
            filled = len(rows[i])
        batches[-1].append(i)
    return batches


def log_ratios(policy: PreTrainedModel, rows: Any, label: str | None = None) -> list[float]:
    """log pi(completion) - log `policy`(completion) of every row of a `sample` dataset, in nats; pi sampled it.

    Each rank does its share, and all get everything.
    """
    from accelerate.utils import gather_object

    distributed = PartialState()
    places = range(distributed.process_index, len(rows), distributed.num_processes)
    ratios = array("d")
    for start in range(0, len(places), BLOCK):
        block = rows.select(places[start : start + BLOCK])
        prompts, completions = block["prompt_ids"][:], block["completion_ids"][:]  # a column gives rows slowly
        others = logprobs(policy, prompts, completions, label)
        ratios.extend(sum(own) - sum(other) for own, other in zip(block["logprobs"], others, strict=True))
    whole = [0.0] * len(rows)
    for rank, share in enumerate(gather_object([ratios])):
        whole[rank :: distributed.num_processes] = share
    return whole


def _pad(rows: Sequence[Sequence[int]], value: int, device: Any, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), value, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, where] = torch.tensor(row, dtype=torch.long)
        mask[index, where] = 1
    return ids.to(device), mask.to(device)
