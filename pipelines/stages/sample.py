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

`engine: continuous` is transformers' continuous batching, which runs wherever transformers does. It knows
`temperature`, `top_k` and `top_p` alone; the sampler of `transformers` is what has been measured.

`engine: server` asks vLLM's servers, or others with OpenAI's completions, and `engine: ray` has the workers of a Ray
cluster (`pip install trimtab[ray]`) do what `transformers` does, with the same rows:

    sample: {engine: server, server: {urls: ["http://a:8000/v1", "http://b:8000/v1"], model: policy}, ...}
    sample: {engine: ray, ray: {address: auto, workers: 16}, ...}
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl

from trimtab.pipelines.data import loading, promises
from trimtab.pipelines.data.audit import classes
from trimtab.pipelines.data.clusters import Cluster
from trimtab.pipelines.data.forms import DRAWN, PROMPTS, Data
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.passes import Drawing, told
from trimtab.pipelines.forecasting.work import BYTES_OF_TOKEN, Held, Rows, Work
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.sampling import generation
from trimtab.pipelines.sampling.servers import Servers
from trimtab.pipelines.sampling.settings import Sampling
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.pipelines.training import inputs, lineage
from trimtab.rewards import text

if TYPE_CHECKING:
    from trimtab.pipelines.data.audit.checking import Audit
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step

logger = logging.getLogger(__name__)

SHOWN = 20  # samples, in wandb


@dataclass(kw_only=True)
class Sample(Sampling, Stage):
    """`generate` takes transformers' GenerationConfig keys, `vllm` vLLM's EngineArgs keys.

    `sample_batch_size` is completions per forward pass and rank.
    """

    model: trl.ModelConfig
    prompts: Annotated[Data, PROMPTS]
    fold: list[int] | None = None

    neutral: ClassVar[tuple[str, ...]] = ("ray",)
    alike: ClassVar[Mapping[str, Mapping[str, str]]] = {"engine": {"ray": "transformers"}}
    neutral_when_empty: ClassVar[tuple[str, ...]] = ("audit", "server")
    writes: ClassVar[tuple[str, ...]] = DRAWN
    shows: ClassVar[Shows] = Shows(results=("completions", "length", "truncated"), section="completions")

    @classmethod
    def neutral_inside(cls, key: str, block: Mapping[str, Any]) -> Collection[str]:
        if key == "server":
            return Servers.neutral
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
        lengths, part = known.lengths(self.model, self._longest), self.completions_of_part(count)
        size = count * BYTES_OF_TOKEN * float(answers.tokens.mean())
        if self.server is not None and self.server.logprobs == "server":  # which draws and tells elsewhere
            return Work("rows", handled=count, leaves=size)
        drawn = Drawing(model, prompts, count, batch, lengths, self._longest, self.num_generations, part)
        passes = (told(model, answers, count),) if self.leaves_logprobs else ()
        draws = () if self.server is not None else (drawn,)
        return Work("models", (Held(model),), passes, draws=draws, handled=count, leaves=size)

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
        import numpy as np

        from trimtab.pipelines.sampling import joining, prompts, shards, transformers_engine
        from trimtab.pipelines.sampling.completing import Completing

        rows = self._prompts(step)
        tokenizer = transformers_engine.load_tokenizer(self.model)
        config = transformers_engine.settings(self.model, tokenizer, self.generate)
        ids = prompts.token_ids(step, tokenizer, rows, self.prompts, (*step.path, "prompts"))
        lengths = prompts.lengths(ids)
        order = np.argsort(lengths, kind="stable")
        if reshaped := generation.reshaped(self.generate):
            message = "%s: completions are not drawn from the policy itself (%s); `logprobs` are the policy's"
            logger.warning(message, step.name, ", ".join(reshaped))
        completing = Completing(
            model=self.model,
            config=config,
            tokenizer=tokenizer,
            prompts=ids,
            order=order,
            longest=int(lengths.max()),
            num_generations=self.num_generations,
            size=self.completions_of_part(len(ids) * self.num_generations),
            batch_size=self.sample_batch_size,
            seed=step.seed,
            is_text=isinstance(rows[0]["prompt"], str),
            path=step.path,
            drawn=self.drawn(step, self.model, ids.select(order)["ids"], config, tokenizer),
            is_served=self.server is not None and self.server.logprobs == "server",
            tolerance=self.server.tolerance if self.server else None,
        )
        if self.ray is not None or self.engine == "ray":
            shards.compute_on(self.ray or Cluster(), step, "rows", completing.count, completing)
        else:
            shards.compute(step, "rows", completing.count, completing)
        sampled = shards.collect(step, "rows", completing.count)
        joining.write(step, rows, sampled)
        first = next(joining.batches(rows, sampled)).select(range(min(SHOWN, completing.total)))
        tracking.table("samples", list(map(_shown, first)))
        return {"prompts": len(ids), "completions": len(sampled), **joining.totals(sampled)}

    def _prompts(self, step: Step) -> Any:
        rows, counts = self.audit_of(step).kept(self.prompts, "prompts", PROMPTS)
        tracking.log(counts)
        if self.fold is None:
            return rows
        part, count = self.fold
        return rows.select(range(part - 1, len(rows), count))


def _shown(row: dict[str, Any]) -> dict[str, str]:
    return {"prompt": text(row["prompt"]), "completion": text(row["completion"])}
