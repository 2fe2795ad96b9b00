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
(nats per token). trl's config asks for at least two completions of a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trl

from pipelines.algorithms.advantages import CriticSettings
from pipelines.data import Data
from pipelines.plugins import ConstrainedReward
from pipelines.stages import Stage


@dataclass(kw_only=True)
class Ppo(Stage):
    """`weight` in a reward's block is its weight in the sum."""

    model: trl.ModelConfig
    data: Data
    eval_data: Data | None = None
    rewards: dict[str, ConstrainedReward]
    critics: CriticSettings = field(default_factory=CriticSettings)
    target_kl: float | None = None
    train: trl.GRPOConfig

    @classmethod
    def expand(cls, name, kind, options, above):
        yield name, "constrained", {**options, "method": "fixed", "trainer": "ppo"}
