"""Sampling with vLLM, for `sample` with `engine: vllm`.

Every group of `tensor_parallel_size` ranks has an engine, in processes of its own that are gone when it has sampled:
the GPUs are free again for the log-probabilities, which the training's own engine computes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
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
    from transformers import GenerationConfig

    from trimtab.pipelines.planning.recipe import Step

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
OURS = ("model", "revision", "tokenizer", "seed")  # of vLLM's engine, which the step knows
# completions that are handed to the engine at once, and that a killed run may have to sample again: many, for its
# batches to stay full, but not so many that few parts leave ranks idle
LEAST, MOST, PARTS = 256, 4096, 64


def check(generate: dict[str, Any], options: dict[str, Any], step: Step) -> None:
    """The preflight: vLLM is there and knows every key of `generate` and of its `options`."""
    try:
        from vllm import EngineArgs
    except ImportError as error:
        raise RecipeError(
            f"vLLM cannot be imported ({error}): pip install trimtab[vllm], or engine: transformers",
            (*step.path, "engine"),
        ) from error
    for key in generate:
        if key not in NAMES and key != "do_sample":
            raise RecipeError(
                f"is not among the keys that both engines know: do_sample, {', '.join(NAMES)}",
                (*step.path, "generate", key),
            )
    known = {field.name for field in dataclasses.fields(EngineArgs)} - set(OURS)
    for key in options:
        place = (*step.path, "vllm", key)
        if key in OURS:
            raise RecipeError("is set by the step", place)
        if key not in known:
            raise RecipeError(f"unknown key for vLLM's EngineArgs{suggest(key, known)}", place)


def complete(
    step: Step, model: trl.ModelConfig, prompts: Sequence[Sequence[int]], each: int, config: GenerationConfig,
    options: dict[str, Any],
) -> list[list[int]]:  # fmt: skip
    """`each` completions of every prompt, prompt by prompt, as token ids up to and including the first stop token.

    `options` are vLLM's EngineArgs. Every completion has a seed of its own, so on one kind of machine they do not
    depend on the number of ranks. Raises RecipeError where the ranks are no multiple of `tensor_parallel_size`.
    """
    distributed = PartialState()
    ranks = options.get("tensor_parallel_size", 1) * options.get("pipeline_parallel_size", 1)
    if distributed.num_processes > 1 and distributed.num_processes % ranks:
        raise RecipeError(
            f"an engine takes {ranks} ranks (tensor_parallel_size x pipeline_parallel_size), and the launch's "
            f"{distributed.num_processes} are no multiple of that",
            (*step.path, "vllm"),
        )
    group = min(ranks, distributed.num_processes)  # one process may drive an engine on several GPUs
    greedy = not config.do_sample
    settings = {ours: value for name, ours in NAMES.items() if (value := getattr(config, name)) is not None}
    settings |= {"temperature": 0.0} if greedy else {}
    size = -(-min(MOST, max(LEAST, len(prompts) * each // PARTS)) // each)  # prompts of a part
    stack = contextlib.ExitStack()

    @functools.cache  # begun by the first part that is missing, on a rank that makes parts
    def engine() -> Any:
        return stack.enter_context(_engine(model, step, ranks, options))

    def make(part: int) -> list[dict[str, Any]]:
        from vllm import SamplingParams

        places = range(part * size, min(len(prompts), (part + 1) * size))
        wanted = [
            SamplingParams(
                n=1 if greedy else each,  # the k-th of n is drawn with seed + k
                seed=(step.seed * 1_000_003 + at * each) % 2**63,
                stop_token_ids=config.eos_token_id,
                detokenize=False,
                **settings,
            )
            for at in places
        ]
        found = engine().generate([{"prompt_token_ids": list(prompts[at])} for at in places], wanted, use_tqdm=False)
        drawn = [sorted(request.outputs, key=lambda output: output.index) for request in found]
        return [
            {"completion_ids": list(output.token_ids)}
            for outputs in drawn for output in (outputs * each if greedy else outputs)
        ]  # fmt: skip

    count = -(-len(prompts) // size)
    with stack:
        shards.compute(step, "tokens", count, make, group=group)
    distributed.wait_for_everyone()  # until the engines of others are gone from this rank's GPU
    return shards.collect(step, "tokens", count)["completion_ids"].to_pylist()


@contextlib.contextmanager
def _engine(model: trl.ModelConfig, step: Step, ranks: int, options: dict[str, Any]) -> Iterator[Any]:
    from vllm import LLM

    with _own_world(ranks):
        llm = LLM(
            model=model.model_name_or_path,
            **{
                "revision": model.model_revision,
                "dtype": model.dtype or "auto",
                "seed": step.seed % 2**31,
                "enable_prefix_caching": True,  # the completions of a prompt share its keys and values
                "generation_config": "vllm",  # what the model's own file recommends does not apply: `generate` does
            }
            | options,
        )
    try:
        yield llm
    finally:
        stop_vllm(llm)


@contextlib.contextmanager
def _own_world(ranks: int) -> Iterator[None]:
    """The processes that are started here see this rank's GPU and the `ranks` - 1 after it, and nothing of the launch.

    A launcher's variables would make them ranks of it.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith(("TORCHELASTIC_", "MASTER_")) or name.endswith(("RANK", "WORLD_SIZE")):
            del os.environ[name]
    if torch.cuda.is_available():
        visible = before.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
        at = PartialState().local_process_index
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[at : at + ranks])
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
