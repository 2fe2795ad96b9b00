"""Kind `evaluate`: policies side by side on held-out prompts. A macro of `sample`, `score` and `compare`.

    evaluate:
      policies: {sft: $sft, dpo: $dpo}
      baseline: sft                       # win rates and differences are against it
      reference: $sft                     # KL is to it
      prompts: {path: $world/prompts, split: test}
      rewards: {gold: {kind: gold}, helpful: {kind: reward_model, path: $helpful}}
      num_generations: 2
      generate: {max_new_tokens: 64}

A new reward scores the stored completions again; a new policy samples only its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.data import Data
from pipelines.errors import RecipeError, suggest
from pipelines.plugins import RewardBlock
from pipelines.stages import SAMPLING, Stage


@dataclass(kw_only=True)
class Evaluate(Stage):
    """`model` holds trl.ModelConfig keys for all policies (dtype, attn_implementation); `baseline` is one of them."""

    policies: dict[str, str]
    prompts: Data
    rewards: dict[str, RewardBlock]
    baseline: str | None = None
    reference: str | None = None
    num_generations: int = 1
    generate: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 64
    engine: Literal["transformers", "vllm", "auto"] = "transformers"
    vllm: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def expand(cls, name, kind, options, above):
        path = ("stages", name)
        for key in ("policies", "prompts", "rewards"):
            if not options.get(key):
                raise RecipeError("required key is missing", (*path, key))
        policies = options["policies"]
        if not isinstance(policies, dict):
            raise RecipeError(f"expected a mapping of names to models, got {policies!r}", (*path, "policies"))
        baseline = options.get("baseline") or next(iter(policies))
        if baseline not in policies:
            raise RecipeError(
                f"{baseline!r} is not one of the policies{suggest(baseline, policies)}", (*path, "baseline")
            )
        model = options.get("model", {})
        sampling = {key: options[key] for key in ("prompts", "num_generations", *SAMPLING) if key in options}
        sampling.setdefault("num_generations", cls.num_generations)
        for policy, weights in policies.items():
            sample, score = f"{name}-{policy}-sample", f"{name}-{policy}-score"
            yield sample, "sample", {"model": {**model, "model_name_or_path": weights}, **sampling}
            yield score, "score", {"completions": f"${sample}", "rewards": options["rewards"]}
        compared = {"scored": {policy: f"${name}-{policy}-score" for policy in policies}, "baseline": baseline}
        if options.get("reference"):
            compared["reference"] = {**model, "model_name_or_path": options["reference"]}
        yield name, "compare", compared
