"""Kind `sample`: K completions of every prompt, with their token ids and log-probabilities.

    sample: {model: {model_name_or_path: $dpo}, prompts: $world/prompts, num_generations: 4,
             generate: {temperature: 0.8, max_new_tokens: 128}}

The dataset has one row per completion: the prompt's columns, `prompt_index`, `sample_index`, `completion` (a string or
messages, as the prompt is), `prompt_ids`, `completion_ids`, `vocabulary` (a hash of the tokenizer's: ids of one mean
nothing to a model of another), `logprobs` (nats per token, at temperature 1) and
`truncated` (no stop within max_new_tokens). Every completion has a seed of its own, so that it does not depend on the
number of ranks or on `sample_batch_size`, but for the last bits of the arithmetic; where `generate` has keys that only
transformers' own sampling knows, such as penalties, each batch has one. `fold: [2, 3]` takes the second of three
parts of the prompts, every third one.

`generate: {eos_token_id: 13, stop_strings: ["Question:"]}` are further stops beside the model's own; a completion has
its stop as its last token. What a model's file recommends for generation, but for its end tokens, does not apply.
Temperature, `top_p`, penalties and the like make a sampler that is not the policy: `logprobs` are the policy's in any
case, so KL and entropy that are estimated from such samples are those of neither.

`engine: vllm` (`pip install trimtab[vllm]`) samples with vLLM, into the same columns:

    sample: {engine: vllm, vllm: {dtype: bfloat16, tensor_parallel_size: 2}, ...}

vLLM takes the model's dtype unless told otherwise, and is slow in float32. Log-probabilities are still computed by
transformers, as the trainings that follow compute theirs. `engine: auto` is vllm where that is installed: the samples
then depend on the machine.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl

from trimtab.pipelines.data import loading, promises
from trimtab.pipelines.data.audit import classes
from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.passes import Drawing, told
from trimtab.pipelines.forecasting.work import BYTES_OF_TOKEN, Held, Rows, Work
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import tracking, watch
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.sampling import generation
from trimtab.pipelines.sampling.settings import Sampling
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.pipelines.training import inputs, lineage
from trimtab.rewards import _vocabulary, text

if TYPE_CHECKING:
    from trimtab.pipelines.data.audit.checking import Audit
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step

logger = logging.getLogger(__name__)

SHOWN = 20  # samples, in wandb
PARTS, PART = 4, 8  # at least so many parts where there are batches for them; of at most so many batches


@dataclass(kw_only=True)
class Sample(Sampling, Stage):
    """`generate` takes transformers' GenerationConfig keys, `vllm` vLLM's EngineArgs keys.

    `sample_batch_size` is completions per forward pass and rank.
    """

    model: trl.ModelConfig
    prompts: Annotated[Data, PROMPTS]
    fold: list[int] | None = None

    neutral_when_empty: ClassVar[tuple[str, ...]] = ("audit",)
    writes: ClassVar[tuple[str, ...]] = (
        "prompt",
        "completion",
        "prompt_index",
        "sample_index",
        "prompt_ids",
        "completion_ids",
        "vocabulary",
        "logprobs",
        "truncated",
    )
    shows: ClassVar[Shows] = Shows(results=("completions", "length", "truncated"), section="completions")

    @classmethod
    def neutral_inside(cls, key: str, block: Mapping[str, Any]) -> Collection[str]:
        return classes.neutral(block) if key == "audit" else super().neutral_inside(key, block)

    def audit_of(self, step: Step) -> Audit:
        return inputs.audit(self.model, None, self.audit, step, room=self._longest)

    def check(self, step: Step) -> None:
        if self.fold is not None and not (len(self.fold) == 2 and 1 <= self.fold[0] <= self.fold[1]):
            raise RecipeError(f"expected [part, parts], such as [1, 3], got {self.fold}", (*step.path, "fold"))
        self.check_sampling(step)
        if step.pending(self.model.model_name_or_path):  # of one that is there, the audit names the prompts
            lineage.require_context(step, self.model, self._longest, 1, (*step.path, "generate", "max_new_tokens"))
        super().check(step)
        self._check_stops(step)
        self._check_fold(step)

    def _check_stops(self, step: Step) -> None:
        """Raises RecipeError for a stop token that the model's vocabulary lacks: nothing would ever stop there."""
        stops = generation.listed(self.generate.get("eos_token_id"))
        tokenizer = inputs.tokenizer(self.model, None, step) if stops else None
        if tokenizer is not None and max(stops) >= len(tokenizer):
            vocabulary = f"the vocabulary of {self.model.model_name_or_path} has {len(tokenizer)} tokens"
            raise RecipeError(f"{vocabulary}, and no {max(stops)}", (*step.path, "generate", "eos_token_id"))

    def _check_fold(self, step: Step) -> None:
        """Raises RecipeError where the prompts do not give every fold one."""
        if self.fold is None:
            return
        count, folds = self._count(step), self.fold[1]
        if count is not None and count < folds:
            raise RecipeError(
                f"{count} prompts cannot be split into {folds} folds, of which every round takes one: give more "
                "prompts, or fewer `rounds`, or let every round have all of them (`split_prompts: false`)",
                (*step.path, "prompts"),
            )

    def _count(self, step: Step) -> int | None:
        """How many prompts there are, or will be at most; None where that is not certain."""
        sources = chain.from_iterable(map(loading.files, self.prompts.datasets))
        if any(map(step.pending, sources)):
            return promises.of(self.prompts, step).rows
        return len(loading.load(self.prompts, (*step.path, "prompts")))

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        is_chat = promises.is_chat(self.prompts, step, (*step.path, "prompts"))
        is_there = not any(map(step.pending, chain.from_iterable(map(loading.files, self.prompts.datasets))))
        asked = self.prompts if is_there and self.fold is None else None
        return Promise(answers=self.num_generations, asked=asked, is_chat=is_chat)

    def work(self, known: Known) -> Work:
        model, prompts, answers = known.model(self.model), known.rows("prompts"), self.leaves(known, "", "train")
        batch, count = self.sample_batch_size, answers.count
        part = batch * min(PART, math.ceil(count / batch / PARTS))
        lengths = known.lengths(self.model, self._longest)
        drawn = Drawing(model, prompts, count, batch, lengths, self._longest, self.num_generations, part)
        size = count * BYTES_OF_TOKEN * float(answers.tokens.mean())
        passes = (told(model, answers, count),) if self.engine == "vllm" else ()  # the sampler tells its own
        return Work("models", (Held(model),), passes, draws=(drawn,), handled=count, leaves=size)

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        prompts = known.rows("prompts")
        asked = prompts.count / (self.fold[1] if self.fold else 1)
        before = len(known.assumed)
        rows = prompts.answered(known.lengths(self.model, self._longest))
        assumed = (*prompts.assumed, *known.assumed[before:])
        return replace(rows, count=asked * self.num_generations, prompts=asked, answer=self._longest, assumed=assumed)

    @property
    def _longest(self) -> int:
        return self.generate.get("max_new_tokens") or generation.MAX_NEW_TOKENS

    def run(self, step: Step) -> Metrics:
        from transformers import set_seed

        from trimtab.pipelines.data.writing import write_batches
        from trimtab.pipelines.sampling import joining, prompts, sampler, shards, transformers_engine

        rows = self._prompts(step)
        tokenizer = transformers_engine.load_tokenizer(self.model)
        vocabulary, is_text = _vocabulary.identity(tokenizer), isinstance(rows[0]["prompt"], str)
        config = transformers_engine.settings(self.model, tokenizer, self.generate)
        ids = prompts.token_ids(tokenizer, rows, self.prompts, (*step.path, "prompts"))
        by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        order = list(product(by_length, range(self.num_generations)))  # (prompt_index, sample_index)
        if reshaped := generation.reshaped(self.generate):
            message = "%s: completions are not drawn from the policy itself (%s); `logprobs` are the policy's"
            logger.warning(message, step.name, ", ".join(reshaped))
        drawn = self._drawn_by_vllm(step, [ids[i] for i in by_length], config)
        policy = transformers_engine.load(self.model)
        own = drawn is None and sampler.can_sample(policy, config, max(map(len, ids)))
        batches = math.ceil(len(order) / self.sample_batch_size / PARTS) if own else 1
        size = self.sample_batch_size * min(batches, PART)
        parts = [order[start : start + size] for start in range(0, len(order), size)]

        def complete(number: int) -> list[sampler.Completion]:
            part = parts[number]
            asked = [ids[i] for i, _ in part]
            if own:
                requests = [sampler.Request(ids[i], (step.seed, i, k)) for i, k in part]
                return sampler.sample(policy, requests, config, self.sample_batch_size)
            set_seed(step.seed + 7919 * number)
            if drawn is None:
                completions = transformers_engine.generate(policy, asked, config, tokenizer)
            else:
                completions = drawn[number * size : (number + 1) * size]
            logprobs = transformers_engine.logprobs(policy, asked, completions)
            return list(map(sampler.Completion, completions, logprobs))

        def make(number: int) -> list[dict[str, Any]]:
            with watch.part(f"in batch {number}"):
                completions = complete(number)
            texts = tokenizer.batch_decode([completion.ids for completion in completions], skip_special_tokens=True)
            sampled = []
            for (i, k), completion, answer in zip(parts[number], completions, texts, strict=True):
                said = answer if is_text else [{"role": "assistant", "content": answer}]
                place = {"completion": said, "prompt_index": i, "sample_index": k}
                tokens = {"prompt_ids": ids[i], "completion_ids": completion.ids, "logprobs": completion.logprobs}
                truncated = transformers_engine.end(completion.ids, config, tokenizer) is None
                sampled.append(place | tokens | {"truncated": truncated, "vocabulary": vocabulary})
            return sampled

        shards.compute(step, "rows", len(parts), make)
        sampled = shards.collect(step, "rows", len(parts))
        write_batches(step, joining.batches(rows, sampled))
        first = next(joining.batches(rows, sampled)).select(range(min(SHOWN, len(order))))
        tracking.table("samples", list(map(_shown, first)))
        return {"prompts": len(ids), "completions": len(sampled), **joining.totals(sampled)}

    def _prompts(self, step: Step) -> Any:
        rows, counts = self.audit_of(step).kept(self.prompts, "prompts", PROMPTS)
        tracking.log(counts)
        if self.fold is None:
            return rows
        part, count = self.fold
        return rows.select(range(part - 1, len(rows), count))

    def _drawn_by_vllm(self, step: Step, prompts: list[list[int]], config: Any) -> Sequence[list[int]] | None:
        """The token ids of all completions, prompt after prompt; None where transformers samples batch by batch."""
        if not self.with_vllm:
            return None
        from trimtab.pipelines.sampling import vllm_engine

        return vllm_engine.complete(step, self.model, prompts, self.num_generations, config, self.vllm)


def _shown(row: dict[str, Any]) -> dict[str, str]:
    return {"prompt": text(row["prompt"]), "completion": text(row["completion"])}
