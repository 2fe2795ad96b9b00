"""The keys of every stage that samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import trl

from trimtab.pipelines.data import clusters
from trimtab.pipelines.data.audit import classes
from trimtab.pipelines.data.clusters import Cluster
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.sampling import generation
from trimtab.pipelines.sampling.servers import Servers

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.planning.recipe import Step

# how a loop loads the models that it has trained, to sample from them, whatever was merged into them
LOADING = ("dtype", "attn_implementation", "trust_remote_code")
PARTS, PART = 4, 8  # at least so many parts where there are batches for them; of at most so many batches


@dataclass(kw_only=True)
class Sampling:
    """`generate` takes transformers' GenerationConfig keys, `vllm` vLLM's EngineArgs keys.

    `sample_batch_size` is completions per forward pass and rank. `engine: auto` is vllm where that is installed,
    `continuous` is transformers' continuous batching, `server` asks the servers of `server`, and `ray` is transformers
    on the workers of a cluster.
    `audit` says what follows from prompts that are not right, such as `{beyond_context: drop}`: see docs/data.md.
    """

    num_generations: int = 4
    generate: dict[str, Any] = field(default_factory=dict)
    sample_batch_size: int = 64
    engine: Literal["transformers", "continuous", "vllm", "server", "ray", "auto"] = "transformers"
    vllm: dict[str, Any] = field(default_factory=dict)
    server: Servers | None = None
    ray: Cluster | None = None
    audit: classes.Actions = field(default_factory=dict)

    @classmethod
    def handed_on(cls, options: dict[str, Any]) -> dict[str, Any]:
        """What a macro's block says of sampling, for its `sample` steps; what it leaves out stays their default."""
        given = {key: options[key] for key in (field.name for field in fields(Sampling)) if key in options}
        return {"num_generations": cls.num_generations, **given}

    @property
    def leaves_logprobs(self) -> bool:
        """Whether the engine draws tokens alone, so that a pass through the policy tells their log-probabilities."""
        return self._whole is not None

    @property
    def _whole(self) -> str | None:
        """The engine that draws all completions at once; None where the step draws parts, one by one."""
        if self.engine == "auto":
            return "vllm" if find_spec("vllm") is not None else None
        return None if self.engine in ("transformers", "ray") else self.engine

    def completions_of_part(self, total: float) -> int:
        """How many of all completions make a part: what is drawn at once, and lost where a run is killed."""
        return self.sample_batch_size * min(math.ceil(total / self.sample_batch_size / PARTS), PART)

    def check_sampling(self, step: Step) -> None:
        """Raises RecipeError for what the engine does not know, or would not do as it is written."""
        for key in ("num_generations", "sample_batch_size"):
            if getattr(self, key) < 1:
                raise RecipeError(f"must be at least 1, got {getattr(self, key)}", (*step.path, key))
        generation.check(self.generate, (*step.path, "generate"))
        if self.generate.get("do_sample") is False and self.num_generations > 1:
            raise RecipeError(
                f"the likeliest tokens are the same {self.num_generations} times: write `num_generations: 1`",
                (*step.path, "generate", "do_sample"),
            )
        if self._whole is not None:
            _module(self._whole).check(self, step)
        if self.engine == "ray":
            clusters.check((*step.path, "engine"))
        for key in ("server", "ray"):
            if getattr(self, key) is not None and self.engine != key:
                raise RecipeError(f"is for `engine: {key}`, and the engine is {self.engine}", (*step.path, key))

    def drawn(
        self, step: Step, model: trl.ModelConfig, prompts: Sequence[list[int]], config: Any, tokenizer: Any
    ) -> Dataset | None:
        """Completions by an engine that draws all at once; None where the parts of the step are drawn one by one."""
        if self._whole is None:
            return None
        return _module(self._whole).complete(self, step, model, prompts, config, tokenizer)


def _module(engine: str) -> ModuleType:
    """What draws all completions at once: `check` looks at the keys, and `complete` draws."""
    return import_module(f"{__package__}.{engine}_engine")


def greedy(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a `sample` step with the likeliest tokens in the place of samples."""
    drawn = ("temperature", "top_p", "top_k", "min_p")
    kept = {key: value for key, value in options.get("generate", {}).items() if key not in drawn}
    return {**options, "num_generations": 1, "generate": {**kept, "do_sample": False}}
