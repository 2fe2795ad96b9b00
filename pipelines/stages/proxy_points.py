"""Kind `proxy_points`: the rewards past which more of them makes a metric worse, found by training on each alone.

    proxy_points:
      model: {model_name_or_path: $sft}
      data: $prompts
      rewards: {helpful: {kind: reward_model, path: $helpful}, brief: {kind: length, target: 60}}
      metric: {kind: reward_model, path: $judge}      # or gold, a metric of your own: what is to be large in truth
      repeats: 3
      train: {learning_rate: 1e-6, num_generations: 8, max_steps: 200}
    constrained:
      rewards: {helpful: {kind: reward_model, path: $helpful, threshold: $proxy_points.helpful}, ...}

Moskovitz et al. 2023 (arXiv 2310.04373), section 3. A macro of `repeats` unconstrained runs of `constrained` for each
reward, and with `together` as many for their sum, which show where all are large; then `surface`, which fits the
metric over the rewards that the runs came by and proposes the thresholds together. `train.beta` is 0 unless given:
the paper's runs have no KL penalty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import trl

from pipelines.algorithms.advantages import CriticSettings
from pipelines.data import Data
from pipelines.errors import RecipeError
from pipelines.plugins import RewardBlock
from pipelines.stages import Stage


@dataclass(kw_only=True)
class ProxyPoints(Stage):
    """`trainer` and `critics` are those of `constrained`, `fit`, `degree`, `density` and `window` those of
    `surface`."""

    model: trl.ModelConfig
    data: Data
    rewards: dict[str, RewardBlock]
    metric: RewardBlock
    repeats: int = 1
    together: bool = True
    trainer: Literal["grpo", "ppo"] = "grpo"
    critics: CriticSettings = field(default_factory=CriticSettings)
    fit: Literal["gaussian_process", "polynomial"] = "gaussian_process"
    degree: int = 10
    density: float = 0.05
    window: int = 5
    train: trl.GRPOConfig

    @classmethod
    def expand(cls, name, kind, options, above):
        path = ("stages", name)
        for key in ("model", "data", "rewards", "metric"):
            if not options.get(key):
                raise RecipeError("required key is missing", (*path, key))
        rewards, repeats = options["rewards"], options.get("repeats", cls.repeats)
        if not isinstance(rewards, dict) or not all(isinstance(block, dict) for block in rewards.values()):
            raise RecipeError("expected a mapping of names to rewards", (*path, "rewards"))
        if not isinstance(repeats, int) or repeats < 1:
            raise RecipeError(f"must be a whole number of at least 1, got {repeats!r}", (*path, "repeats"))
        train = {"beta": 0.0, **(options.get("train") or {}), "logging_steps": 1}
        passed = {key: options[key] for key in ("model", "data", "trainer", "critics") if key in options}
        alone = {reward: [reward] for reward in rewards}
        if options.get("together", cls.together) and len(rewards) > 1:
            alone["together"] = list(rewards)
        runs = []
        for pushed, trained in alone.items():
            for at in range(repeats):
                blocks = {reward: {**block, "weight": float(reward in trained)} for reward, block in rewards.items()}
                runs.append(f"{name}-{pushed}-{at + 1}")
                yield runs[-1], "constrained", {
                    **passed,
                    "method": "fixed",
                    "rewards": {**blocks, "metric": {**options["metric"], "weight": 0.0}},
                    "train": train,
                    "seed_offset": at,
                }  # fmt: skip
        fitting = {key: options[key] for key in ("fit", "degree", "density", "window") if key in options}
        yield name, "surface", {"runs": [f"${run}" for run in runs], "rewards": list(rewards), **fitting}
