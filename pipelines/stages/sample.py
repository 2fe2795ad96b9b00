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

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl
from trimtab.pipelines.data import loading
from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.sampling.settings import Sampling
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.pipelines.training import inputs
from trimtab.rewards import text

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Sample(Sampling, Stage):
    """`generate` takes transformers' GenerationConfig keys; `batch_size` is completions per forward pass and rank.

    `vllm` takes vLLM's EngineArgs keys.
    """

    model: trl.ModelConfig
    prompts: Annotated[Data, PROMPTS]
    fold: list[int] | None = None

    shows: ClassVar[Shows] = Shows(results=("completions", "length", "truncated"), section="completions")

    def audit_tokenizer(self, step: Step) -> Any:
        return inputs.tokenizer(self.model, None, step)

    def check(self, step: Step) -> None:
        if self.fold is not None and not (len(self.fold) == 2 and 1 <= self.fold[0] <= self.fold[1]):
            raise RecipeError(f"expected [part, parts], such as [1, 3], got {self.fold}", (*step.path, "fold"))
        self.check_sampling(step)
        super().check(step)

    def run(self, step: Step) -> Metrics:
        from transformers import set_seed
        from trimtab.pipelines.data.writing import write_rows
        from trimtab.pipelines.sampling import shards, transformers_engine

        rows = loading.load(self.prompts, (*step.path, "prompts"))
        if self.fold:
            part, count = self.fold
            rows = rows.select(range(part - 1, len(rows), count))
        tokenizer = transformers_engine.load_tokenizer(self.model)
        config = transformers_engine.settings(self.model, tokenizer, self.generate)
        ids = [transformers_engine.encode(tokenizer, prompt) for prompt in rows["prompt"]]
        by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        order = [i for i in by_length for _ in range(self.num_generations)]
        batches = [order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size)]
        nth = [at % self.num_generations for at in range(len(order))]
        drawn = None
        if self.with_vllm:
            from trimtab.pipelines.sampling import vllm_engine

            prompts = [ids[i] for i in by_length]
            drawn = vllm_engine.complete(step, self.model, prompts, self.num_generations, config, self.vllm)
        policy = transformers_engine.load(self.model)

        def make(batch: int) -> list[dict[str, Any]]:
            set_seed(step.seed + 7919 * batch)
            chosen = batches[batch]
            prompts = [ids[i] for i in chosen]
            if drawn is None:
                completions = transformers_engine.generate(policy, prompts, config)
            else:
                completions = drawn[batch * self.batch_size :][: len(chosen)]
            logprobs = transformers_engine.logprobs(policy, prompts, completions)
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

        shards.compute(step, "batch", len(batches), make)
        table = shards.collect(step, "batch", len(batches))
        table = table.sort_by([("prompt_index", "ascending"), ("sample_index", "ascending")])
        write_rows(step, table)
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
