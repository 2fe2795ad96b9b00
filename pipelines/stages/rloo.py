"""Kind `rloo`: REINFORCE with a leave-one-out baseline on a weighted sum of rewards (trl.RLOOTrainer).

    rloo:
      model: {model_name_or_path: $sft}
      data: $prompts
      rewards: {right: {kind: math}}
      train: {num_generations: 4, beta: 0.05, learning_rate: 1e-6, max_completion_length: 256}

Ahmadian et al. 2024 (arXiv 2402.14740). A completion's advantage is its reward minus the mean of those of the prompt's
other completions, and is divided by nothing unless `normalize_advantages` says so, so that an easy prompt teaches as
much as its rewards differ: the noise of a reward model in a group that is all right stays as small as it is.
`train.beta` times the KL of the completion to the start is taken off its reward. Rewards, failures, sampling and
resumption are as in `grpo`.

With `normalize_advantages` all of a batch's are divided by their standard deviation, and `std_floor: 0.05` adds 0.05
to it in the place of trl's 0.0001, for batches that are all right or all wrong but for noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import trl

from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.reward_blocks import WeightedReward
from trimtab.pipelines.reporting.shows import ROLLOUTS, Shows
from trimtab.pipelines.stages import Metrics, TrainerStage
from trimtab.pipelines.training import online
from trimtab.pipelines.training.fit import fit

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Rloo(TrainerStage):
    """`data` are prompts, whose further columns go to the rewards. `weight` in a reward's block is its weight."""

    model: trl.ModelConfig
    data: Annotated[Data, PROMPTS]
    eval_data: Annotated[Data | None, PROMPTS] = None
    rewards: dict[str, WeightedReward]
    std_floor: float | None = None
    train: trl.RLOOConfig

    neutral_when_empty: ClassVar[tuple[str, ...]] = (*TrainerStage.neutral_when_empty, "std_floor")
    shows: ClassVar[Shows] = ROLLOUTS

    def check(self, step: Step) -> None:
        if not self.rewards:
            raise RecipeError("name at least one reward", (*step.path, "rewards"))
        online.check_set_elsewhere(self, step, {"reward_weights": "`weight` in the reward's block"})
        online.check_sampler(self, step)
        if self.std_floor is not None:
            if not self.std_floor > 0:
                raise RecipeError(f"must be above 0, got {self.std_floor:g}", (*step.path, "std_floor"))
            if not self.train.normalize_advantages:
                message = "nothing is divided by a standard deviation: leave it out, or set"
                raise RecipeError(f"{message} `train.normalize_advantages`", (*step.path, "std_floor"))
        super().check(step)
        online.check_prompts_ahead(self, step)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.trainers.weighted_rewards import WeightedRLOOTrainer

        online.check_prompts(self, step)
        self.train.reward_weights = online.reward_weights(self.rewards)
        functions = online.reward_functions(self.rewards, step)
        return fit(WeightedRLOOTrainer, self, step, std_floor=self.std_floor, reward_funcs=functions)
