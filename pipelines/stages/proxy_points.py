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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from trimtab.pipelines.algorithms import surface
from trimtab.pipelines.algorithms.advantages import CriticSettings
from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.field_types import KeysOf
from trimtab.pipelines.planning.reward_blocks import RewardBlock
from trimtab.pipelines.stages import Stage, StepOptions

if TYPE_CHECKING:
    from trimtab.pipelines.shrinking.miniature import Miniature

PASSED = ("model", "data", "trainer", "critics")  # on to the runs
FITTING = ("fit", "degree", "density", "window")  # on to `surface`


@dataclass(kw_only=True)
class ProxyPoints(Stage):
    """`trainer` and `critics` are those of `constrained`; `fit`, `degree`, `density`, `window` those of `surface`."""

    model: Annotated[dict[str, Any], KeysOf(("trl.ModelConfig",))]
    data: Annotated[Data, PROMPTS]
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
    train: Annotated[dict[str, Any], KeysOf(("trl.GRPOConfig",))] = field(default_factory=dict)

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        return {**super().small(block, miniature), "window": 1}

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterator[StepOptions]:
        macro = cls.as_written(name, options)
        if macro.repeats < 1:
            raise RecipeError(f"must be at least 1, got {macro.repeats}", ("stages", name, "repeats"))
        trained = {reward: [reward] for reward in macro.rewards}
        if macro.together and len(macro.rewards) > 1:
            trained["together"] = list(macro.rewards)
        runs = []
        for pushed, rewards in trained.items():
            for repeat in range(macro.repeats):
                runs.append(f"{name}-{pushed}-{repeat + 1}")
                passed = {key: options[key] for key in PASSED if key in options}
                yield runs[-1], "constrained", {**passed, **macro._run(rewards), "seed_offset": repeat}
        macro._require_points(len(runs), ("stages", name))
        fitting = {key: options[key] for key in FITTING if key in options}
        yield name, "surface", {"runs": [f"${run}" for run in runs], "rewards": list(macro.rewards), **fitting}

    def _require_points(self, runs: int, path: tuple[str, ...]) -> None:
        """Raises RecipeError where the runs cannot give the points that a surface needs: at most one a step."""
        steps = self.train.get("max_steps", -1)
        if steps < 1 or self.window < 1:
            return  # by epochs, which only the data knows; `surface` refuses such a window
        if steps < self.window:
            message = f"a run of {steps} steps has fewer than {self.window} logged rollouts: raise train.max_steps"
            raise RecipeError(message, (*path, "window"))
        points, least = runs * (steps // self.window), surface.LEAST * len(self.rewards)
        if points < least:
            raise RecipeError(
                f"{runs} runs of {steps} steps give {points} points, each of {self.window} steps, and a surface over "
                f"{len(self.rewards)} rewards needs {least}: raise repeats or train.max_steps, or lower window",
                (*path, "repeats"),
            )

    def _run(self, trained: list[str]) -> dict[str, Any]:
        """An unconstrained run for some of the rewards, which logs all of them and the metric."""
        rewards = {name: {**block, "weight": float(name in trained)} for name, block in self.rewards.items()}
        rewards["metric"] = {**self.metric, "weight": 0.0}
        return {"method": "fixed", "rewards": rewards, "train": {"beta": 0.0, **self.train, "logging_steps": 1}}
