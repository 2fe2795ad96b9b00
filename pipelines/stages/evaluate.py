"""Kind `evaluate`: policies side by side on held-out prompts. A macro of `sample`, `score` and `compare`.

    evaluate:
      policies: {sft: $sft, dpo: $dpo}
      baseline: sft                       # win rates and differences are against it
      reference: $sft                     # KL is to it
      prompts: {path: $world/prompts, split: test}
      rewards: {gold: {kind: gold}, helpful: {kind: reward_model, path: $helpful}}
      num_generations: 2
      generate: {max_new_tokens: 64}
      best_of: {n: [1, 4, 16], gold: right, reward: helpful}   # of each policy, and its greedy answers
      duels: {better: {kind: judge, mode: pairwise, against: other, ...}}   # each policy against the baseline

`completions: {mended: $reflect}` are answers to the same prompts that another stage has made: they are scored and
compared as those of a policy. A new reward scores the stored completions again; a new policy samples only its own.
The judges in `duels` compare every policy's completions with the baseline's, number by number: `kind: duel` says what
comes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from trimtab.pipelines.data.forms import PROMPTS, SAMPLED, Data
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.field_types import KeysOf, ModelName
from trimtab.pipelines.planning.reward_blocks import RewardBlock
from trimtab.pipelines.sampling.settings import Sampling, greedy
from trimtab.pipelines.stages import Stage, StepOptions


@dataclass(kw_only=True)
class Evaluate(Sampling, Stage):
    """`model` holds trl.ModelConfig keys for all policies (dtype, attn_implementation); `baseline` is one of them."""

    policies: dict[str, ModelName]
    prompts: Annotated[Data, PROMPTS]
    rewards: dict[str, RewardBlock]
    baseline: str | None = None
    reference: ModelName | None = None
    num_generations: int = 1
    model: Annotated[dict[str, Any], KeysOf(("trl.ModelConfig",))] = field(default_factory=dict)
    best_of: Annotated[dict[str, Any], KeysOf(("best_of",))] = field(default_factory=dict)
    duels: dict[str, RewardBlock] = field(default_factory=dict)
    completions: dict[str, Annotated[Data, SAMPLED]] = field(default_factory=dict)

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterator[StepOptions]:
        macro = cls.as_written(name, options)
        policies, model = macro.policies, macro.model
        baseline = macro.baseline or next(iter(policies))
        if baseline not in policies:
            hint = suggest(baseline, policies)
            raise RecipeError(f"{baseline!r} is not one of the policies{hint}", ("stages", name, "baseline"))
        for policy, weights in policies.items():
            sampling = {"model": {**model, "model_name_or_path": weights}, "prompts": macro.prompts}
            yield f"{name}-{policy}-sample", "sample", {**sampling, **cls.handed_on(options)}
            scoring = {"completions": f"${name}-{policy}-sample", "rewards": macro.rewards}
            yield f"{name}-{policy}-score", "score", scoring
            if macro.best_of:
                yield from cls._best_of(f"{name}-{policy}", macro, sampling, cls.handed_on(options))
        for others in macro.completions:
            if others in policies:
                raise RecipeError("is the name of a policy, too", ("stages", name, "completions", others))
            scoring = {"completions": options["completions"][others], "rewards": macro.rewards}
            yield f"{name}-{others}-score", "score", scoring
        for policy in [other for other in policies if macro.duels and other != baseline]:
            meeting = {"completions": f"${name}-{policy}-sample", "opponent": f"${name}-{baseline}-sample"}
            yield f"{name}-{policy}-duel", "duel", {**meeting, "rewards": macro.duels}
        scored = {policy: f"${name}-{policy}-score" for policy in (*policies, *macro.completions)}
        compared: dict[str, Any] = {"scored": scored, "baseline": baseline}
        if macro.reference:
            compared["reference"] = {**model, "model_name_or_path": macro.reference}
        yield name, "compare", compared

    @classmethod
    def _best_of(
        cls, name: str, macro: Evaluate, sampling: dict[str, Any], handed: dict[str, Any]
    ) -> Iterator[StepOptions]:
        """The steps of a policy's greedy answers, and of what choosing among its samples gives."""
        yield f"{name}-greedy-sample", "sample", greedy({**sampling, **handed})
        scoring = {"completions": f"${name}-greedy-sample", "rewards": macro.rewards}
        yield f"{name}-greedy-score", "score", scoring
        chosen = {"completions": f"${name}-score", "greedy": f"${name}-greedy-score"}
        yield f"{name}-best", "best_of", {**chosen, **macro.best_of}
