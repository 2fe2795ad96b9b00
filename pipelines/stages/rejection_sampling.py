"""Kind `rejection_sampling`: sft on the best of a policy's own answers. A macro of sample, score, curate and sft.

    improve:
      kind: rejection_sampling
      model: {model_name_or_path: $sft}
      prompts: $problems
      rewards: {right: {kind: math}, helpful: {kind: reward_model, path: $helpful}}
      reward: helpful
      curate: {keep: 2, require: {right: 1}, deduplicate: 0.9}
      num_generations: 8
      generate: {max_new_tokens: 256}
      train: {learning_rate: 1e-5}

Of each prompt's completions those are kept that `reward` scores highest, and with `require` none that is not right.
The control of a reward that chooses is one that draws: `curate: {temperature: .inf, require: {right: 1}}` trains on as
many right completions that nothing has chosen. Prompts with no such completion are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import trl

from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.planning.field_types import KeysOf
from trimtab.pipelines.planning.reward_blocks import RewardBlock
from trimtab.pipelines.sampling.settings import Sampling
from trimtab.pipelines.stages import Stage, StepOptions


@dataclass(kw_only=True)
class RejectionSampling(Sampling, Stage):
    """`reward` is one of the rewards or weights of several, by default their sum."""

    model: trl.ModelConfig
    prompts: Annotated[Data, PROMPTS]
    rewards: dict[str, RewardBlock]
    reward: str | dict[str, float] | None = None
    num_generations: int = 8
    curate: Annotated[dict[str, Any], KeysOf(("curate",))] = field(default_factory=dict)
    train: Annotated[dict[str, Any], KeysOf(("trl.SFTConfig",))] = field(default_factory=dict)

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterator[StepOptions]:
        macro = cls.as_written(name, options)
        model = options["model"]
        sampling = {"num_generations": macro.num_generations, **cls.handed_on(options)}
        yield f"{name}-sample", "sample", {"model": model, "prompts": macro.prompts, **sampling}
        yield f"{name}-score", "score", {"completions": f"${name}-sample", "rewards": macro.rewards}
        reward = macro.reward or dict.fromkeys(macro.rewards, 1.0)
        chosen = {"completions": f"${name}-score", "reward": reward, "temperature": 0.0, **macro.curate}
        yield f"{name}-curate", "curate", chosen
        yield name, "sft", {"model": model, "data": f"${name}-curate", "train": macro.train}
