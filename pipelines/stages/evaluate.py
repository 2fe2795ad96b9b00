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
      reflect: {dpo: {critic: {model: {...}}, rounds: 2}}   # a policy that thinks again, as in `reflect`
      duels: {better: {kind: judge, mode: pairwise, against: other, ...}}   # each policy against the baseline
      labels: {raters: 2}                                                   # the same duels by people

`completions: {mended: $reflect}` are answers to the same prompts that another stage has made: they are scored and
compared as those of a policy. A new reward scores the stored completions again; a new policy samples only its own.

A policy in `reflect` has two rows more: `dpo-reflect`, its answers when a critic has read its thoughts, with all
tokens that were spent; and `dpo-best`, the control at equal tokens (`equal_tokens`): of as many samples as come to
that, the one that `best_of`'s `reward` likes best, or, without one, that says what most say. As many samples are drawn
for each answer as `reflect` draws, the critic's included, or as `best_of` has in `n` where that is more.

The judges in `duels`, and with `labels` people in the page of `label`, compare every policy's completions with the
baseline's, number by number: `kind: duel` says what comes of it. People are waited for at each policy's duel, when all
policies have answered and been scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any

from trimtab.pipelines.data.forms import PROMPTS, SAMPLED, Data
from trimtab.pipelines.labelling.people import People
from trimtab.pipelines.planning import kinds
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.field_types import KeysOf, ModelName
from trimtab.pipelines.planning.reward_blocks import RewardBlock
from trimtab.pipelines.sampling.settings import Sampling, greedy
from trimtab.pipelines.stages import Stage, StepOptions

if TYPE_CHECKING:
    from trimtab.pipelines.shrinking.miniature import Miniature


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
    labels: People | None = None
    completions: dict[str, Annotated[Data, SAMPLED]] = field(default_factory=dict)
    reflect: dict[str, Annotated[dict[str, Any], KeysOf(("reflect",))]] = field(default_factory=dict)

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        changes = super().small(block, miniature)
        of_reflections = {f"reflect.{policy}.num_generations" for policy in block.get("reflect") or {}}
        kept = {key: changes[key] for key in changes if key not in of_reflections}  # as many as the policies have
        return kept if block.get("labels") is None else {**kept, "labels": None}  # nobody is asked

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
        is_met = bool(macro.duels) or macro.labels is not None
        for policy in [other for other in policies if is_met and other != baseline]:
            meeting = {"completions": f"${name}-{policy}-sample", "opponent": f"${name}-{baseline}-sample"}
            people = {} if macro.labels is None else {"people": macro.labels}
            yield f"{name}-{policy}-duel", "duel", {**meeting, "rewards": macro.duels, **people}
        scored = {policy: f"${name}-{policy}-score" for policy in (*policies, *macro.completions)}
        for policy, thinking in macro.reflect.items():
            path = ("stages", name, "reflect", policy)
            if policy not in policies:
                raise RecipeError(f"is not one of the policies{suggest(policy, policies)}", path)
            if taken := {f"{policy}-reflect", f"{policy}-best"} & scored.keys():
                raise RecipeError(f"is to leave {taken.pop()}, and another policy is called so: rename that", path)
            sampling = {"model": {**model, "model_name_or_path": policies[policy]}, "prompts": macro.prompts}
            sampling |= cls.handed_on(options)
            steps = _nested(f"{name}-{policy}-reflect", "reflect", {**sampling, **thinking}, above, path)
            yield from steps
            yield from cls._at_equal_tokens(
                f"{name}-{policy}", macro, sampling, sum(step[1] == "sample" for step in steps)
            )
            scored[f"{policy}-reflect"] = f"${name}-{policy}-reflect-score"
            scored[f"{policy}-best"] = f"${name}-{policy}-best-of-tokens"
        compared: dict[str, Any] = {"scored": scored, "baseline": baseline}
        if macro.reference:
            compared["reference"] = {**model, "model_name_or_path": macro.reference}
        yield name, "compare", compared

    @classmethod
    def _at_equal_tokens(
        cls, name: str, macro: Evaluate, sampling: dict[str, Any], draws: int
    ) -> Iterator[StepOptions]:
        """The scores of what a policy says when it reflects, and the best of as many tokens of its samples."""
        rewards = {"rewards": macro.rewards}
        yield f"{name}-reflect-score", "score", {"completions": f"${name}-reflect", **rewards}
        tries = max([draws, *macro.best_of.get("n", ())])
        again = {**sampling, "num_generations": tries * macro.num_generations, "seed_offset": 1}
        yield f"{name}-more-sample", "sample", again
        yield f"{name}-more-score", "score", {"completions": f"${name}-more-sample", **rewards}
        choice = {"reward": macro.best_of["reward"]} if macro.best_of.get("reward") else {}
        chosen = {"completions": f"${name}-more-score", "budget": f"${name}-reflect", **choice}
        yield f"{name}-best-of-tokens", "equal_tokens", chosen

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


def _nested(
    name: str, kind: str, options: dict[str, Any], above: tuple[str, ...], path: tuple[str, ...]
) -> list[StepOptions]:
    """The steps of another macro inside this one, whose mistakes are those of the keys at `path`."""
    cls = kinds.find(kinds.STAGES, kind)
    keys = [field.name for field in fields(cls)]
    for key in options:
        if key not in keys:
            raise RecipeError(f"unknown key for kind {kind!r}{suggest(key, keys)}", (*path, key))
    try:
        return list(cls.expand(name, kind, options, above))
    except RecipeError as error:
        raise RecipeError(error.message, (*path, *error.path[2:])) from error
