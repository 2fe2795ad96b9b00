"""Kind `ppo`: proximal policy optimisation on the weighted sum of rewards, with a critic for each of them.

    ppo:
      model: {model_name_or_path: $sft}
      data: $prompts
      rewards: {helpful: {kind: reward_model, path: $helpful}}
      critics: {trunk: separate, lam: 0.95, learning_rate: 1e-5}
      train: {beta: 0.05, learning_rate: 1e-6, num_generations: 2, num_iterations: 4, steps_per_generation: 4,
              max_completion_length: 256}

A short form of `constrained` with `trainer: ppo` and `method: fixed`. `train` holds trl.GRPOConfig's keys:
`num_iterations` are PPO's epochs over a rollout and `steps_per_generation` its minibatches, `epsilon` is the clip
range, `entropy_coef` the entropy bonus, `beta` the coefficient of the KL to the start, which adapts to `target_kl`
(nats per token). trl's config asks for at least two completions of a prompt. `proximal: 1.0` holds the epochs by a
`distance` from the policy that sampled, in the place of the clip, as in `grpo`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import trl

from trimtab.pipelines.algorithms.advantages import CriticSettings
from trimtab.pipelines.algorithms.schedules import ScheduleSettings
from trimtab.pipelines.algorithms.target_surrogates import Distance
from trimtab.pipelines.data.audit import classes
from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.planning.reward_blocks import ConstrainedReward
from trimtab.pipelines.recording.artifacts import Keep
from trimtab.pipelines.stages import Stage, StepOptions


@dataclass(kw_only=True)
class Ppo(Stage):
    """`weight` in a reward's block is its weight in the sum."""

    model: trl.ModelConfig
    data: Annotated[Data, PROMPTS]
    eval_data: Annotated[Data | None, PROMPTS] = None
    rewards: dict[str, ConstrainedReward]
    critics: CriticSettings = field(default_factory=CriticSettings)
    target_kl: float | None = None
    proximal: float | None = None
    distance: Distance | None = None
    audit: classes.Actions = field(default_factory=dict)
    train: trl.GRPOConfig
    schedule: ScheduleSettings | None = None
    must_learn: bool = True
    keep: Keep = "all"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterator[StepOptions]:
        yield name, "constrained", {**options, "method": "fixed", "trainer": "ppo"}
