"""The completions of a step, cut into parts whose rows any process can make, in any order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import trl
from transformers import GenerationConfig, PreTrainedTokenizerBase, set_seed

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import watch
from trimtab.pipelines.sampling import sampler, transformers_engine
from trimtab.rewards import _vocabulary

if TYPE_CHECKING:
    from datasets import Dataset

Place = tuple[int, int]  # prompt_index and sample_index


@dataclass(kw_only=True)
class Completing:
    """Makes the rows of a part, by its number. The policy is loaded with the first part that needs it.

    `prompts` has the column `ids`, `order` the numbers of the prompts in the order in which they are asked, `size`
    counts the completions of a part, and `batch_size` those of one forward pass. `drawn` are completions that another
    engine has drawn, in that order: `completion_ids`, and `served`, what the engine says of their log-probabilities
    (NaN where it says nothing). They are the rows' where `is_served`; else the policy's own are, from which the
    engine's may differ by `tolerance` nats a token, in the mean of a part: beyond that it has sampled another policy.
    """

    model: trl.ModelConfig
    config: GenerationConfig
    tokenizer: PreTrainedTokenizerBase
    prompts: Dataset
    order: np.ndarray
    longest: int
    num_generations: int
    size: int
    batch_size: int
    seed: int
    is_text: bool
    path: tuple[str, ...]
    drawn: Dataset | None = None
    is_served: bool = False
    tolerance: float | None = None
    policy: Any = None

    @property
    def total(self) -> int:
        """The number of all completions."""
        return len(self.order) * self.num_generations

    @property
    def count(self) -> int:
        """The number of parts."""
        return math.ceil(self.total / self.size)

    def __call__(self, number: int) -> list[dict[str, Any]]:
        """The rows of a part."""
        numbers = range(number * self.size, min(self.total, (number + 1) * self.size))
        asked, places = self._asked(numbers)
        with watch.part(f"in part {number}"):
            completions = self._completions(numbers, asked, places)
        ids = [completion.ids for completion in completions]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        vocabulary = _vocabulary.identity(self.tokenizer)
        rows = []
        for prompt, (i, k), completion, answer in zip(asked, places, completions, texts, strict=True):
            said = answer if self.is_text else [{"role": "assistant", "content": answer}]
            place = {"completion": said, "prompt_index": i, "sample_index": k}
            tokens = {"prompt_ids": prompt, "completion_ids": completion.ids, "logprobs": completion.logprobs}
            truncated = transformers_engine.end(completion.ids, self.config, self.tokenizer) is None
            rows.append(place | tokens | {"truncated": truncated, "vocabulary": vocabulary})
        return rows

    def _asked(self, numbers: range) -> tuple[list[list[int]], list[Place]]:
        """The prompts of completions by their numbers, as often as they are asked, and their places."""
        first, last = numbers[0] // self.num_generations, numbers[-1] // self.num_generations
        indices = self.order[first : last + 1].tolist()
        ids = self.prompts.select(indices)["ids"][:]
        turns = [divmod(number, self.num_generations) for number in numbers]
        return [ids[i - first] for i, _ in turns], [(indices[i - first], k) for i, k in turns]

    def _completions(self, numbers: range, asked: list[list[int]], places: list[Place]) -> list[sampler.Completion]:
        if self.drawn is not None:
            return self._of_drawn(self.drawn.select(numbers), asked)
        policy = self._loaded()
        if sampler.can_sample(policy, self.config, self.longest):
            requests = [sampler.Request(ids, (self.seed, *place)) for ids, place in zip(asked, places, strict=True)]
            return sampler.sample(policy, requests, self.config, self.batch_size)
        completions: list[list[int]] = []
        for start in range(0, len(asked), self.batch_size):
            set_seed(self.seed + 7919 * ((numbers[0] + start) // self.batch_size))
            batch = asked[start : start + self.batch_size]
            completions += transformers_engine.generate(policy, batch, self.config, self.tokenizer)
        logprobs = transformers_engine.logprobs(policy, asked, completions)
        return list(map(sampler.Completion, completions, logprobs))

    def _of_drawn(self, drawn: Dataset, asked: list[list[int]]) -> list[sampler.Completion]:
        """Completions that are there, with the log-probabilities that are asked for."""
        completions = drawn["completion_ids"][:]
        served = drawn["served"][:] if "served" in drawn.column_names else None
        if self.is_served and served is not None:
            return list(map(sampler.Completion, completions, served))
        logprobs = transformers_engine.logprobs(self._loaded(), asked, completions)
        if served is not None:
            self._compare(logprobs, served)
        return list(map(sampler.Completion, completions, logprobs))

    def _compare(self, logprobs: list[list[float]], served: list[list[float]]) -> None:
        """Raises RecipeError where the engine's log-probabilities are another policy's."""
        apart = np.abs(np.concatenate(logprobs) - np.concatenate(served))
        apart = apart[~np.isnan(apart)]
        if self.tolerance is not None and len(apart) and apart.mean() > self.tolerance:
            raise RecipeError(
                f"the server says log-probabilities that are {apart.mean():.3g} nats a token from those of "
                f"{self.model.model_name_or_path}, more than `tolerance` ({self.tolerance:g}): it serves another "
                "model, or the same one before it was trained",
                (*self.path, "server"),
            )

    def _loaded(self) -> Any:
        if self.policy is None:
            self.policy = transformers_engine.load(self.model)
        return self.policy
