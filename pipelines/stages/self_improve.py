"""Kind `self_improve`: rounds of solving, verifying, and learning from the solutions that a reward model likes best.

    self_improve:
      model: {model_name_or_path: $sft}
      prompts: {path: openai/gsm8k, name: main, layout: gsm8k}
      right: {kind: math}
      rounds: 3
      num_generations: 8
      judge: {learning_rate: 1e-5}      # the reward model's training
      train: {learning_rate: 1e-5}      # the policy's

Round t, after Qwen2.5-Math (arXiv 2409.12122); the policy goes on from the round before, or with `retrain: fresh`
from the model given:

    sample    num_generations solutions of each problem
    verify    by `right`, whose score is at least `least` for a right one
    pair      the solutions of a problem together; problems that are solved always or never are left out
    judge     a reward model, from the model given, on every right solution against every wrong one (`all_pairs`)
    grade     the solutions by it
    keep      the `keep` right solutions of a problem that it likes best, without repeats
    train     the policy on them

The artifact is the last policy; `$self_improve-1` is that of the first round and `$self_improve-3-judge` the reward
model of the last. Problems without an answer are verified by what most of their solutions say: a composite of `math`
and `vote` as `right`. **Control**: `choose: random` keeps right solutions by chance, with equal samples and steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.field_types import KeysOf
from trimtab.pipelines.planning.reward_blocks import RewardBlock
from trimtab.pipelines.sampling.settings import LOADING, Sampling
from trimtab.pipelines.stages import Stage, StepOptions

if TYPE_CHECKING:
    from trimtab.pipelines.shrinking.miniature import Miniature


@dataclass(kw_only=True)
class SelfImprove(Sampling, Stage):
    """`right` is a reward that verifies. `curate` takes that stage's keys, such as `decontaminate`."""

    model: Annotated[dict[str, Any], KeysOf(("trl.ModelConfig",))]
    prompts: Annotated[Data, PROMPTS]
    right: RewardBlock
    least: float = 1.0
    rounds: int = 3
    num_generations: int = 8
    choose: Literal["judge", "random"] = "judge"
    keep: int = 1
    retrain: Literal["warm", "fresh"] = "warm"
    curate: Annotated[dict[str, Any], KeysOf(("curate",))] = field(default_factory=dict)
    judge: Annotated[dict[str, Any], KeysOf(("trl.RewardConfig",))] = field(default_factory=dict)
    train: Annotated[dict[str, Any], KeysOf(("trl.SFTConfig",))] = field(default_factory=dict)

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        few_steps = {"judge.max_steps": 2, "judge.logging_steps": 1}
        return {**super().small(block, miniature), **few_steps, "least": -1e9}  # a random model solves nothing

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterator[StepOptions]:
        loop = cls.as_written(name, options)
        if loop.rounds < 1:
            raise RecipeError(f"must be at least 1, got {loop.rounds}", ("stages", name, "rounds"))
        start = loop.model.get("model_name_or_path")
        if start is None:
            raise RecipeError("required key is missing", ("stages", name, "model", "model_name_or_path"))
        policy = start
        for number in range(1, loop.rounds + 1):
            in_round = f"{name}-{number}"
            yield from loop._solving_steps(in_round, policy, cls.handed_on(options))
            if loop.choose == "judge":
                yield from loop._judging_steps(in_round, start)
            yield loop._keeping_step(in_round, number)
            begin = policy if loop.retrain == "warm" else start
            training = {"model": {**loop.model, "model_name_or_path": begin}, "data": f"${in_round}-keep"}
            yield name if number == loop.rounds else in_round, "sft", {**training, "train": loop.train}
            policy = f"${in_round}"

    def _solving_steps(self, in_round: str, policy: str, sampling: dict[str, Any]) -> Iterator[StepOptions]:
        loaded = {key: value for key, value in self.model.items() if key in LOADING}
        asking = {"model": {**loaded, "model_name_or_path": policy}, "prompts": self.prompts}
        yield f"{in_round}-sample", "sample", {**asking, **sampling}
        scoring = {"completions": f"${in_round}-sample", "rewards": {"right": self.right}}
        yield f"{in_round}-verify", "score", scoring

    def _judging_steps(self, in_round: str, start: str) -> Iterator[StepOptions]:
        pairing = {"completions": f"${in_round}-verify", "reward": "right", "select": "grouped"}
        yield f"{in_round}-pair", "pair", pairing
        learning = {"model": {**self.model, "model_name_or_path": start}, "data": f"${in_round}-pair"}
        yield f"{in_round}-judge", "reward", {**learning, "loss": "all_pairs", "train": self.judge}
        rewards = {"right": self.right, "quality": {"kind": "reward_model", "path": f"${in_round}-judge"}}
        yield f"{in_round}-grade", "score", {"completions": f"${in_round}-sample", "rewards": rewards}

    def _keeping_step(self, in_round: str, number: int) -> StepOptions:
        by_judge = self.choose == "judge"
        choosing: dict[str, Any] = {
            "completions": f"${in_round}-{'grade' if by_judge else 'verify'}",
            "reward": "quality" if by_judge else "right",
            "temperature": 0.0 if by_judge else float("inf"),
            "require": {"right": self.least},
        }
        return f"{in_round}-keep", "curate", {**choosing, "keep": self.keep, "round": number, **self.curate}
