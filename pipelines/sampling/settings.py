"""The keys of every stage that samples."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from trimtab.pipelines.planning.errors import RecipeError, suggest

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Sampling:
    """`generate` takes transformers' GenerationConfig keys, `vllm` vLLM's EngineArgs keys.

    `batch_size` is completions per forward pass and rank. `engine: auto` is vllm where that is installed.
    """

    num_generations: int = 4
    generate: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 64
    engine: Literal["transformers", "vllm", "auto"] = "transformers"
    vllm: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def handed_on(cls, options: dict[str, Any]) -> dict[str, Any]:
        """What a macro's block says of sampling, for its `sample` steps; what it leaves out stays their default."""
        given = {key: options[key] for key in (field.name for field in fields(Sampling)) if key in options}
        return {"num_generations": cls.num_generations, **given}

    @property
    def with_vllm(self) -> bool:
        """Whether vLLM is what samples here."""
        return self.engine == "vllm" or (self.engine == "auto" and find_spec("vllm") is not None)

    def check_sampling(self, step: Step) -> None:
        """Raises RecipeError for a key that the engine does not know."""
        from transformers import GenerationConfig

        keys = set(GenerationConfig().to_dict()) | set(inspect.signature(GenerationConfig).parameters)
        for key in self.generate:
            if key not in keys:
                place = (*step.path, "generate", key)
                raise RecipeError(f"unknown key for GenerationConfig{suggest(key, keys)}", place)
        if self.with_vllm:
            from trimtab.pipelines.sampling import vllm_engine

            vllm_engine.check(self.generate, self.vllm, step)
