"""Kind `sample`: K completions of every prompt, with their token ids and log-probabilities.

    sample: {model: {model_name_or_path: $dpo}, prompts: $world/prompts, num_generations: 4,
             generate: {temperature: 0.8, max_new_tokens: 128}}

The dataset has one row per completion: the prompt's columns, `prompt_index`, `sample_index`, `completion` (a string or
messages, as the prompt is), `prompt_ids`, `completion_ids`, `logprobs` (nats per token, at temperature 1) and
`truncated` (no stop token within max_new_tokens). Batches are cut from all prompts sorted by length and each has a
seed of its own, so the completions do not depend on the number of ranks. `fold: [2, 3]` takes the second of three
parts of the prompts, every third one.

`engine: vllm` (`pip install trimtab[vllm]`) samples with vLLM, into the same columns:

    sample: {engine: vllm, vllm: {dtype: bfloat16, tensor_parallel_size: 2}, ...}

vLLM takes the model's dtype unless told otherwise, and is slow in float32. Log-probabilities are still computed by
transformers, as the trainings that follow compute theirs. `engine: auto` is vllm where that is installed: the samples
then depend on the machine.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

import trl

from pipelines import data, tracking, training
from pipelines.data import Data
from pipelines.errors import RecipeError, suggest
from pipelines.stages import Stage
from rewards import text


@dataclass(kw_only=True)
class Sample(Stage):
    """`generate` takes transformers' GenerationConfig keys; `batch_size` is completions per forward pass and rank.

    `vllm` takes vLLM's EngineArgs keys.
    """

    model: trl.ModelConfig
    prompts: Data
    num_generations: int = 4
    generate: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 64
    engine: Literal["transformers", "vllm", "auto"] = "transformers"
    vllm: dict[str, Any] = field(default_factory=dict)
    fold: list[int] | None = None

    def check(self, step):
        if self.fold is not None and not (len(self.fold) == 2 and 1 <= self.fold[0] <= self.fold[1]):
            raise RecipeError(f"expected [part, parts], such as [1, 3], got {self.fold}", (*step.path, "fold"))
        from transformers import GenerationConfig

        known = set(GenerationConfig().to_dict()) | set(inspect.signature(GenerationConfig).parameters)
        for key in self.generate:
            if key not in known:
                place = (*step.path, "generate", key)
                raise RecipeError(f"unknown key for GenerationConfig{suggest(key, known)}", place)
        if self._with_vllm():
            from pipelines import vllm_generation

            vllm_generation.check(self.generate, self.vllm, step)
        training.tokenizer(self.model, None, step)
        data.check(self.prompts, step, "prompts", data.PROMPTS)

    def run(self, step):
        from transformers import set_seed

        from pipelines import generation, parts

        rows = data.load(self.prompts, (*step.path, "prompts"))
        if self.fold:
            part, count = self.fold
            rows = rows.select(range(part - 1, len(rows), count))
        tokenizer = generation.load_tokenizer(self.model)
        config = generation.settings(self.model, tokenizer, self.generate)
        ids = [generation.encode(tokenizer, prompt) for prompt in rows["prompt"]]
        by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        order = [i for i in by_length for _ in range(self.num_generations)]
        batches = [order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size)]
        nth = [at % self.num_generations for at in range(len(order))]
        drawn = None
        if self._with_vllm():
            from pipelines import vllm_generation

            prompts = [ids[i] for i in by_length]
            drawn = vllm_generation.complete(step, self.model, prompts, self.num_generations, config, self.vllm)
        policy = generation.load(self.model)

        def make(batch: int) -> list[dict[str, Any]]:
            set_seed(step.seed + 7919 * batch)
            chosen = batches[batch]
            prompts = [ids[i] for i in chosen]
            if drawn is None:
                completions = generation.generate(policy, prompts, config)
            else:
                completions = drawn[batch * self.batch_size :][: len(chosen)]
            logprobs = generation.logprobs(policy, prompts, completions)
            texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
            found = []
            for at, i in enumerate(chosen):
                row = rows[i]
                chat = not isinstance(row["prompt"], str)
                found.append({
                    **row,
                    "prompt_index": i,
                    "sample_index": nth[batch * self.batch_size + at],
                    "completion": [{"role": "assistant", "content": texts[at]}] if chat else texts[at],
                    "prompt_ids": prompts[at],
                    "completion_ids": completions[at],
                    "logprobs": logprobs[at],
                    "truncated": not completions[at] or completions[at][-1] not in config.eos_token_id,
                })  # fmt: skip
            return found

        parts.compute(step, "batch", len(batches), make)
        table = parts.collect(step, "batch", len(batches))
        table = table.sort_by([("prompt_index", "ascending"), ("sample_index", "ascending")])
        parts.publish(step, table)
        shown = table.slice(0, 20).to_pylist()
        tracking.table("samples", [{"prompt": text(r["prompt"]), "completion": text(r["completion"])}
                                   for r in shown])  # fmt: skip
        lengths = [len(completion) for completion in table["completion_ids"].to_pylist()]
        return {
            "prompts": len(ids),
            "completions": len(lengths),
            "tokens": sum(lengths),
            "length": sum(lengths) / len(lengths),
            "truncated": sum(table["truncated"].to_pylist()) / len(lengths),
        }

    def _with_vllm(self) -> bool:
        return self.engine == "vllm" or (self.engine == "auto" and find_spec("vllm") is not None)
