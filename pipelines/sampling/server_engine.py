"""Sampling on servers, for `sample` with `engine: server`.

Prompts go out as token ids, one request for each completion, with a seed of its own. Answers come back as token ids
where the server says them (vLLM does); else its text is tokenised again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import trl
from accelerate import PartialState

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.sampling import shards
from trimtab.pipelines.sampling.servers import Servers
from trimtab.pipelines.sampling.transformers_engine import end
from trimtab.pipelines.sampling.vllm_engine import KNOWN, NAMES
from trimtab.rewards import _asking

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import GenerationConfig, PreTrainedTokenizerBase

    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.sampling.settings import Sampling
    from trimtab.rewards._http import Post

OF_OPENAI = ("do_sample", "max_new_tokens", "temperature", "top_p")  # of `generate`; vLLM knows more


def check(sampling: Sampling, step: Step) -> None:
    """Raises RecipeError unless the servers are named and know every key of `generate`."""
    if sampling.server is None:
        raise RecipeError("name the servers, as in `server: {urls: [http://host:8000/v1]}`", (*step.path, "server"))
    dialect = sampling.server.dialect
    known = KNOWN if dialect == "vllm" else OF_OPENAI
    for key, value in sampling.generate.items():
        if key not in known and value is not None:
            named = ", ".join(known)
            message = f"is not among the keys that a server of `dialect: {dialect}` knows: {named}"
            raise RecipeError(message, (*step.path, "generate", key))


def complete(
    sampling: Sampling,
    step: Step,
    model: trl.ModelConfig,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> Dataset:
    """Completions of every prompt, prompt by prompt: `completion_ids`, and `served`, the log-probabilities.

    `served` are NaN where the server has said none. What was drawn before a run died is not drawn again. Raises
    RecipeError where a request has failed for good.
    """
    from trimtab.rewards._http import PostFailure

    assert sampling.server is not None
    num_generations = sampling.num_generations
    size = shards.prompts_of_part(len(prompts), num_generations)
    count = -(-len(prompts) // size)
    with reached(model, config, sampling.server, tokenizer) as fleet:

        def make(part: int) -> list[dict[str, Any]]:
            places = range(part * size, min(len(prompts), (part + 1) * size))
            asked = prompts[places.start : places.stop]
            first = step.seed * 1_000_003 + places.start * num_generations
            seeds = [(first + turn) % 2**63 for turn in range(len(places) * num_generations)]
            return fleet.answers([ids for ids in asked for _ in range(num_generations)], seeds)

        try:
            if shards.kept(step, "tokens", count) < count:
                fleet.reload()
            shards.compute(step, "tokens", count, make)
        except PostFailure as failure:
            kept = shards.kept(step, "tokens", count)
            reason = f"{failure.reason}\n{kept} of {count} parts are kept: the same command goes on from there"
            raise RecipeError(reason, (*step.path, "server")) from failure
    return shards.collect(step, "tokens", count)


@contextlib.contextmanager
def reached(
    model: trl.ModelConfig, config: GenerationConfig, servers: Servers, tokenizer: PreTrainedTokenizerBase
) -> Iterator[Fleet]:
    """The servers, for as long as they are asked."""
    with _asking.post(servers) as post:
        yield Fleet(post, servers, model, config, tokenizer)


class Fleet:
    """The servers of one model, asked by this rank."""

    def __init__(
        self,
        post: Post,
        servers: Servers,
        model: trl.ModelConfig,
        config: GenerationConfig,
        tokenizer: PreTrainedTokenizerBase,
    ):
        self.post, self.servers, self.model, self.tokenizer, self.config = post, servers, model, tokenizer, config
        self.urls = [f"{url.rstrip('/')}/completions" for url in servers.urls]

    def reload(self) -> None:
        """Has every server take the policy, where the recipe says how. One rank asks, and the others wait."""
        distributed = PartialState()
        if self.servers.reload is not None and distributed.is_main_process:
            folder = json.dumps(os.path.abspath(self.model.model_name_or_path))[1:-1]
            body = json.loads(json.dumps(self.servers.reload.get("body") or {}).replace("{model}", folder))
            for url in self.servers.urls:
                parts = urlsplit(url)
                self.post([f"{parts.scheme}://{parts.netloc}{self.servers.reload['route']}"], body, lambda said: said)
        distributed.wait_for_everyone()

    def answers(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[dict[str, Any]]:
        """A completion of each prompt. Raises PostFailure for the first that fails, and asks for nothing more."""
        with ThreadPoolExecutor(self.servers.concurrency) as pool:
            try:
                return list(pool.map(self._answer, prompts, seeds))
            except BaseException:  # also Ctrl-C, which shall not wait for a deadline
                pool.shutdown(wait=False, cancel_futures=True)
                self.post.stop()
                raise

    def _answer(self, prompt: Sequence[int], seed: int) -> dict[str, Any]:
        turn = seed % len(self.urls)
        return self.post([*self.urls[turn:], *self.urls[:turn]], self._request(prompt, seed), self._read)[1]

    def _request(self, prompt: Sequence[int], seed: int) -> dict[str, Any]:
        """The body of a request, in the words of the servers' dialect."""
        sampling = {theirs: getattr(self.config, name) for name, theirs in NAMES.items()}
        if not self.config.do_sample:
            sampling["temperature"] = 0.0
        own: dict[str, Any] = {"stop_token_ids": self.config.eos_token_id, "return_token_ids": True}
        if self.servers.dialect == "openai":
            sampling, own = {key: sampling[key] for key in ("max_tokens", "temperature", "top_p")}, {}
        given = {key: value for key, value in sampling.items() if value is not None}
        name = self.servers.model or self.model.model_name_or_path
        about = {"model": name, "prompt": list(prompt), "seed": seed, "n": 1, "logprobs": 1}
        return {**about, **given, **own, **self.servers.settings}

    def _read(self, answer: Any) -> dict[str, Any]:
        """The completion in an answer. Raises ValueError where there is none."""
        try:
            choice = answer["choices"][0]
            ended, said = choice["finish_reason"], choice.get("token_ids")
            served = (choice.get("logprobs") or {}).get("token_logprobs")
            ids = list(map(int, self._tokenised(choice["text"], ended) if said is None else said))
        except (AttributeError, IndexError, KeyError, TypeError):
            raise ValueError("no choices[0] with text and finish_reason in it") from None
        if ended not in ("stop", "length") or not ids:
            raise ValueError(f"a completion that has not ended (finish_reason {ended!r})")
        ids = ids[: end(ids, self.config, self.tokenizer)]
        has_served = said is not None and served is not None and len(served) >= len(ids)
        nothing = [float("nan")] * len(ids)
        if self.servers.logprobs == "server" and not has_served:
            raise ValueError("no token ids with their log-probabilities in it: `logprobs: policy` computes them here")
        return {"completion_ids": ids, "served": served[: len(ids)] if served and has_served else nothing}

    def _tokenised(self, text: str, ended: str) -> list[int]:
        """The token ids of a text, and the model's end where it has ended by itself."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return [*ids, self.tokenizer.eos_token_id] if ended == "stop" else ids[: self.config.max_new_tokens]
