"""Kind `self_correct`: a policy that mends its answers until a check accepts them, in a fixed number of tries.

    self_correct:
      model: {model_name_or_path: $sft}
      prompts: {path: $programmes/problems, split: test}
      checks: {runs: {kind: code, tests: checks, packages: true, score: all}}
      accept: {runs: 1}
      tries: 4

A macro of `sample`, `score` and `retry` for each try, and `first_accepted`, whose completions are then scored by what
is true: `score: {completions: $self_correct, rewards: {solved: ...}}`. The check must not know the answer, or it is no
self-correction. After LLMOPT (arXiv 2410.13213), most of whose gain is that of trying again, every try samples every
prompt, whether it has been accepted or not, and `feedback: false` is the control of equal tries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import trl

from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.reward_blocks import RewardBlock
from trimtab.pipelines.sampling.settings import Sampling
from trimtab.pipelines.stages import Stage, StepOptions

if TYPE_CHECKING:
    from trimtab.pipelines.shrinking.miniature import Miniature


@dataclass(kw_only=True)
class SelfCorrect(Sampling, Stage):
    """`checks` are the rewards that a try is accepted by, and `says` is what `retry` has the policy told."""

    model: trl.ModelConfig
    prompts: Annotated[Data, PROMPTS]
    checks: dict[str, RewardBlock]
    accept: dict[str, float]
    tries: int = 4
    says: str | None = None
    feedback: bool = True
    num_generations: int = 1

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        return {**super().small(block, miniature), "num_generations": 1}

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterator[StepOptions]:
        macro = cls.as_written(name, options)
        for key in ("tries", "num_generations"):
            if getattr(macro, key) < 1 or (key == "num_generations" and macro.num_generations > 1):
                allowed = "1: further answers are further tries" if key == "num_generations" else "at least 1"
                raise RecipeError(f"must be {allowed}, got {getattr(macro, key)}", ("stages", name, key))
        prompts: Any = macro.prompts
        telling = {"feedback": macro.feedback, **({"says": macro.says} if macro.says else {})}
        for number in range(1, macro.tries + 1):
            of_try = f"{name}-{number}"
            asking = {"model": options["model"], "prompts": prompts, **cls.handed_on(options)}
            yield f"{of_try}-sample", "sample", {**asking, "seed_offset": number - 1}
            yield f"{of_try}-check", "score", {"completions": f"${of_try}-sample", "rewards": macro.checks}
            if number < macro.tries:
                retrying = {"scored": f"${of_try}-check", "accept": macro.accept, **telling}
                yield f"{of_try}-retry", "retry", retrying
                prompts = f"${of_try}-retry"
        tries = [f"${name}-{number}-check" for number in range(1, macro.tries + 1)]
        yield name, "first_accepted", {"tries": tries, "accept": macro.accept}
