"""Sampling with vLLM, for `sample` with `engine: vllm`.

Every group of `tensor_parallel_size` ranks has an engine, in processes of its own that are gone when it has sampled:
the GPUs are free again for the log-probabilities, which the training's own engine computes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import trl
from accelerate import PartialState

from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.sampling import shards
from trimtab.pipelines.trainers.seams.engines import stop_vllm

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import GenerationConfig, PreTrainedTokenizerBase
    from vllm import LLM, RequestOutput, SamplingParams

    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.sampling.settings import Sampling

# transformers' names -> vLLM's
NAMES = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
}
KNOWN = ("do_sample", "eos_token_id", *NAMES)
OURS = ("model", "revision", "tokenizer", "seed")  # of vLLM's engine, which the step knows


def check(sampling: Sampling, step: Step) -> None:
    """Raises RecipeError unless vLLM is there and knows every key of `generate` and of `vllm`."""
    try:
        from vllm import EngineArgs
    except ImportError as error:
        raise RecipeError(
            f"vLLM cannot be imported ({error}): pip install trimtab[vllm], or engine: transformers",
            (*step.path, "engine"),
        ) from error
    for key, value in sampling.generate.items():
        if key not in KNOWN and value is not None:
            raise RecipeError(
                f"is not among the keys that both engines know: {', '.join(KNOWN)}",
                (*step.path, "generate", key),
            )
    keys = {field.name for field in dataclasses.fields(EngineArgs)} - set(OURS)
    for key in sampling.vllm:
        place = (*step.path, "vllm", key)
        if key in OURS:
            raise RecipeError("is set by the step", place)
        if key not in keys:
            raise RecipeError(f"unknown key for vLLM's EngineArgs{suggest(key, keys)}", place)


def complete(
    sampling: Sampling,
    step: Step,
    model: trl.ModelConfig,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> Dataset:
    """Completions of every prompt, prompt by prompt: `completion_ids`, up to and including the first stop token.

    Every completion has a seed of its own, so on one kind of machine they do not depend on the number of ranks. Raises
    RecipeError where the ranks are no multiple of `tensor_parallel_size`.
    """
    distributed, num_generations = PartialState(), sampling.num_generations
    ranks = sampling.vllm.get("tensor_parallel_size", 1) * sampling.vllm.get("pipeline_parallel_size", 1)
    if distributed.num_processes > 1 and distributed.num_processes % ranks:
        raise RecipeError(
            f"an engine takes {ranks} ranks (tensor_parallel_size x pipeline_parallel_size), and the launch's "
            f"{distributed.num_processes} are no multiple of that",
            (*step.path, "vllm"),
        )
    group = min(ranks, distributed.num_processes)  # one process may drive an engine on several GPUs
    size = shards.prompts_of_part(len(prompts), num_generations)
    count = -(-len(prompts) // size)
    engine = _Engine(step, model, ranks, sampling.vllm)

    def make(part: int) -> list[dict[str, Any]]:
        places = range(part * size, min(len(prompts), (part + 1) * size))
        seeds = [(step.seed * 1_000_003 + place * num_generations) % 2**63 for place in places]
        asked = [_sampling(config, num_generations, seed) for seed in seeds]
        rows = []
        for request in engine.generate(prompts[places.start : places.stop], asked):
            outputs = sorted(request.outputs, key=lambda output: output.index)
            rows += [{"completion_ids": list(output.token_ids)} for output in outputs]
        return rows

    try:
        shards.compute(step, "tokens", count, make, group=group)
    finally:
        engine.stop()
    distributed.wait_for_everyone()  # until the engines of others are gone from this rank's GPU
    return shards.collect(step, "tokens", count)


def _sampling(config: GenerationConfig, num_generations: int, seed: int) -> SamplingParams:
    """What transformers' configuration says, as vLLM's."""
    from vllm import SamplingParams

    settings = {ours: value for name, ours in NAMES.items() if (value := getattr(config, name)) is not None}
    if not config.do_sample:
        settings["temperature"] = 0.0
    return SamplingParams(
        n=num_generations,  # the k-th of n is drawn with seed + k
        seed=seed,
        stop_token_ids=config.eos_token_id,
        detokenize=False,
        **settings,
    )


class _Engine:
    """vLLM's engine, which begins with its first prompts: a rank without a part to make has none."""

    def __init__(self, step: Step, model: trl.ModelConfig, ranks: int, options: dict[str, Any]):
        self.step, self.model, self.ranks, self.options = step, model, ranks, options
        self.llm: LLM | None = None

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[SamplingParams]
    ) -> Sequence[RequestOutput]:
        """vLLM's answer to every prompt."""
        if self.llm is None:
            self.llm = self._begin()
        requests = [{"prompt_token_ids": list(ids)} for ids in prompts]
        return self.llm.generate(requests, sampling, use_tqdm=False)

    def stop(self) -> None:
        """Ends the engine's processes, if it has begun."""
        if self.llm is not None:
            stop_vllm(self.llm)

    def _begin(self) -> LLM:
        from vllm import LLM

        settings = {
            "revision": self.model.model_revision,
            "dtype": self.model.dtype or "auto",
            "seed": self.step.seed % 2**31,
            "enable_prefix_caching": True,  # the completions of a prompt share its keys and values
            "generation_config": "vllm",  # what the model's own file recommends does not apply: `generate` does
        }
        with _own_world(self.ranks):
            return LLM(model=self.model.model_name_or_path, **settings | self.options)


@contextlib.contextmanager
def _own_world(ranks: int) -> Iterator[None]:
    """Lets processes that start inside see this rank's GPU and the `ranks` - 1 after it, and nothing of the launch.

    With a launcher's variables they would count themselves among its ranks.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith(("TORCHELASTIC_", "MASTER_")) or name.endswith(("RANK", "WORLD_SIZE")):
            del os.environ[name]
    if torch.cuda.is_available():
        visible = before.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
        first = PartialState().local_process_index
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[first : first + ranks])
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
