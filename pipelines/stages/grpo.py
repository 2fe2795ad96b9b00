"""Kind `grpo`: group relative policy optimisation on a weighted sum of rewards, as trl.GRPOTrainer does it.

    grpo:
      model: {model_name_or_path: $sft}
      data: $prompts
      rewards: {right: {kind: math}, brief: {kind: length, target: 60, weight: 0.1}}
      train: {num_generations: 8, learning_rate: 1e-6, max_completion_length: 256}

`train` holds trl.GRPOConfig's keys, with trl's defaults and every one of its `loss_type`s: which settings make DAPO,
Dr. GRPO, GSPO, CISPO and others is a table in docs/online-methods.md. Shao et al. 2024 (arXiv 2402.03300). Rewards
that are to be held at thresholds are for `constrained`.

Completions are drawn by seeds of their own, and a run that was killed ends with the weights of one that was not. A
reward that fails stops the run with the completion named; `on_failure: abstain | skip_group` goes on without, up to
`max_failures` of a rollout.

`std_floor: 0.05` divides a group's advantages by its standard deviation plus 0.05 in the place of trl's 0.0001. Where
a verifier is shaped by a reward model, as in sigmoid(r / 2) + right - 1, the answers of a group that is all right
differ by the reward model's noise alone, which trl would blow up to a standard deviation of 1.

`proximal: 1.0` holds the `num_iterations` of a rollout by the KL of the policy to the one that sampled, divided by
this, in the place of trl's clip: they then go towards pi_old exp(proximal A) / Z, however many they are (a target
surrogate, Lavington et al. 2023, arXiv 2302.02607, with a KL: mirror descent). With `distance: squared` the targets
are the log-probabilities of the sampled tokens plus `proximal` A. One step is the plain gradient.

`tools: [my_tools.calculator]` are functions that the policy may call, and `environment_factory: my_tools.Browser`
makes an environment for each completion, whose methods are tools (trl's documentation says how they are written).
They are code of your own, run with your consent (docs/trust.md), with arguments that a model has written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl

from trimtab.pipelines.algorithms.target_surrogates import Distance
from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.importing.starting import Start
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.reward_blocks import WeightedReward
from trimtab.pipelines.reporting.shows import ROLLOUTS, Shows
from trimtab.pipelines.stages import Metrics, TrainerStage
from trimtab.pipelines.training import online
from trimtab.pipelines.training.fit import fit

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

FIRST = """\
  grpo:
    model: {model_name_or_path: $base%(adapter)s}
    data: {path: $rows, eval_fraction: 0.05}
    rewards:  # each is one block; docs/rewards.md has them all, and your own function is {kind: my_rewards.name}
      right: {kind: math, column: answer, compare: numbers}
      brief: {kind: length, target: 200, at_most: true, weight: 0.1}
    batch_size: 64  # completions of an optimizer step
    train: {learning_rate: %(rate)s, num_generations: 8, max_completion_length: 512, num_train_epochs: 1}
"""


@dataclass(kw_only=True)
class Grpo(TrainerStage):
    """`data` are prompts, whose further columns go to the rewards. `weight` in a reward's block is its weight.

    `eval_data` is sampled and scored as `train.eval_strategy` says, and at the end.
    """

    model: trl.ModelConfig
    data: Annotated[Data, PROMPTS]
    eval_data: Annotated[Data | None, PROMPTS] = None
    rewards: dict[str, WeightedReward]
    std_floor: float | None = None
    proximal: float | None = None
    distance: Distance | None = None
    tools: list[str] = field(default_factory=list)
    environment_factory: str | None = None
    train: trl.GRPOConfig

    names_code: ClassVar[tuple[str, ...]] = ("tools", "environment_factory")
    neutral_when_empty: ClassVar[tuple[str, ...]] = (*TrainerStage.neutral_when_empty, "proximal", "distance")
    shows: ClassVar[Shows] = ROLLOUTS
    starts: ClassVar[Start | None] = Start(
        "reach a higher reward on prompts",
        "prompt, and answer where it can be checked",
        rate=1e-6,
        tells=(("prompt",),),
        stages=FIRST,
    )

    @classmethod
    def by_micro_batch(cls, train: Mapping[str, Any]) -> bool:
        return online.by_micro_batch(train)

    def check(self, step: Step) -> None:
        if not self.rewards and not self.environment_factory:
            raise RecipeError("name at least one reward", (*step.path, "rewards"))
        online.check_set_elsewhere(self, step, {"reward_weights": "`weight` in the reward's block"})
        online.check_sampler(self, step)
        if self.std_floor is not None and not self.std_floor > 0:
            raise RecipeError(f"must be above 0, got {self.std_floor:g}", (*step.path, "std_floor"))
        is_by_group = self.train.scale_rewards in (True, "group")
        if self.std_floor is not None and not (is_by_group and not self._normalizes_each_reward()):
            message = "is of the standard deviation of a group's sums: leave `scale_rewards` and "
            raise RecipeError(f"{message}`multi_objective_aggregation` as trl has them", (*step.path, "std_floor"))
        online.check_proximal(self, step)
        for index, word in enumerate(self.tools):
            online.check_word(word, (*step.path, "tools", str(index)))
        if self.environment_factory:
            online.check_word(self.environment_factory, (*step.path, "environment_factory"))
        super().check(step)
        online.check_prompts_ahead(self, step)

    def _normalizes_each_reward(self) -> bool:
        return self.train.multi_objective_aggregation == "normalize_then_sum"

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.trainers.weighted_rewards import WeightedGRPOTrainer

        online.check_prompts(self, step)
        self.train.reward_weights = online.reward_weights(self.rewards)
        extra: dict[str, Any] = {"reward_funcs": online.reward_functions(self.rewards, step)}
        if self.tools:
            extra["tools"] = [online.load_word(word, step) for word in self.tools]
        if self.environment_factory:
            extra["environment_factory"] = online.load_word(self.environment_factory, step)
        return fit(WeightedGRPOTrainer, self, step, std_floor=self.std_floor, proximal=online.proximal(self), **extra)
