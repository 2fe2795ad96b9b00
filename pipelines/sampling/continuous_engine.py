"""Sampling with transformers' continuous batching, for `sample` with `engine: continuous`.

Requests come and go in one running batch over a paged cache, in which prompts share what they begin with. On CUDA it
uses flash attention, CUDA graphs and compiled code where transformers decides so. All requests of a part are there
before the first token is drawn, by one seed: the same part gives the same completions on the same machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import trl

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import watch
from trimtab.pipelines.sampling import shards, transformers_engine
from trimtab.rewards._packed_attention import SUFFIX

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import GenerationConfig, PreTrainedTokenizerBase

    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.sampling.settings import Sampling

KNOWN = ("do_sample", "eos_token_id", "max_new_tokens", "temperature", "top_k", "top_p")  # of `generate`
PAGE = 16  # tokens, on a CPU, where the cache is made as large as a full batch may need
TOKENS = 1024  # of a pass on a CPU at most, which reads prompts in pieces


def check(sampling: Sampling, step: Step) -> None:
    """Raises RecipeError for keys of `generate` that continuous batching drops without a word."""
    for key, value in sampling.generate.items():
        if key not in KNOWN and value is not None:
            message = f"is not among the keys that continuous batching knows: {', '.join(KNOWN)}"
            raise RecipeError(message, (*step.path, "generate", key))


def complete(
    sampling: Sampling,
    step: Step,
    model: trl.ModelConfig,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> Dataset:
    """Completions of every prompt, prompt by prompt: `completion_ids`, up to and including the first stop token.

    Up to `sample_batch_size` are drawn at once. Raises RecipeError where transformers has given one up.
    """
    num_generations = sampling.num_generations
    size = shards.prompts_of_part(len(prompts), num_generations)
    count = -(-len(prompts) // size)
    engine = _Engine(step, model, config, sampling.sample_batch_size)

    def make(part: int) -> list[dict[str, Any]]:
        asked = [ids for ids in prompts[part * size : (part + 1) * size] for _ in range(num_generations)]
        with watch.part(f"in part {part}"):
            drawn = list(engine.answers(asked, (step.seed * 1_000_003 + part) % 2**31))
        return [{"completion_ids": ids[: transformers_engine.end(ids, config, tokenizer)]} for ids in drawn]

    shards.compute(step, "tokens", count, make)
    return shards.collect(step, "tokens", count)


class _Engine:
    """The policy with a manager of requests for each part; it is loaded for the first one that this rank makes."""

    def __init__(self, step: Step, model: trl.ModelConfig, config: GenerationConfig, width: int):
        self.step, self.model, self.config, self.width = step, model, config, width
        self.policy: Any = None

    def answers(self, prompts: Sequence[Sequence[int]], seed: int) -> Iterator[list[int]]:
        """The token ids of a completion of each prompt, in their order."""
        if self.policy is None:
            self.policy = transformers_engine.load(self.model)
            # its attention knows packed rows, which a paged cache has not
            self.policy.set_attn_implementation(self.policy.config._attn_implementation.removesuffix(SUFFIX))
        manager = self.policy.init_continuous_batching(
            generation_config=self.config, continuous_batching_config=self._settings(prompts, seed)
        )
        names = manager.add_requests([list(ids) for ids in prompts], max_new_tokens=self.config.max_new_tokens)
        manager.start()
        said: dict[str, Any] = {}
        try:
            while len(said) < len(names):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    watch.moved()
                    said[result.request_id] = result
                elif result is None and not manager.is_running():
                    break
        finally:
            manager.stop(block=True)
        for name in names:
            if name not in said or said[name].error is not None:
                reason = said[name].error if name in said else "it has stopped"
                message = f"continuous batching has given up a completion: {reason}. Use `engine: transformers`"
                raise RecipeError(message, (*self.step.path, "engine"))
            yield said[name].generated_tokens

    def _settings(self, prompts: Sequence[Sequence[int]], seed: int) -> Any:
        """transformers' own settings; no kernels are fetched from the hub, where it would look for faster ones."""
        from transformers import ContinuousBatchingConfig

        settings: dict[str, Any] = {"seed": seed, "auto_switch_to_flash": False}
        settings["max_requests_per_batch"] = self.width
        if self.policy.device.type == "cpu":  # where it would take most of the machine's memory
            longest = max(map(len, prompts)) + self.config.max_new_tokens
            blocks = self.width * math.ceil(longest / PAGE) + 1
            settings |= {"page_size": PAGE, "num_blocks": blocks, "max_batch_tokens": max(TOKENS, self.width)}
        return ContinuousBatchingConfig(**settings)
