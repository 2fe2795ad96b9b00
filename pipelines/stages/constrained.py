"""Kind `constrained`: a policy trained on several rewards, each held at its threshold by a Lagrange multiplier (GRPO).

    constrained:
      model: {model_name_or_path: $sft}
      data: $prompts
      method: xi
      rewards:
        helpful: {kind: reward_model, path: $helpful, normalize: true, threshold: {z: 0.5}}
        brief: {kind: length, target: 60, threshold: {z: 0, of: $score}}
      train: {beta: 0.1, num_generations: 8, learning_rate: 1e-6, max_completion_length: 256}

Moskovitz et al. 2023 (arXiv 2310.04373). A reward model is good up to a point, past which more of it makes answers
worse; so each one has a threshold, and `method` says what that means:

    mu      as little KL to the start as possible, with every reward at its threshold or above
    xi      the same, with every reward at its threshold
    all     the weighted sum of all rewards, with every one at its threshold or below
    sat     no multipliers: minus the weighted squared distances of the rewards' means from their thresholds
    fixed   no multipliers: the weighted sum

`threshold: {z: 0.5}` is half a standard deviation above the mean of the answers that a reward model was calibrated on
(`normalize: true`, which measures its scores in these deviations), and with `of: $score` above that of the completions
that `$score` has scored with the reward of that name, the start's own for example: one number is then good for any
reward. A number alone is in the unit of the reward's scores.

In `mu` and `xi` a reward without a threshold is maximised together with minus the KL (as in safe RLHF: `helpful`
without one, `harmless: {..., threshold: 0}`), and `constraint: at_least | at_most | equal` in a reward's block says
otherwise for that one. `weight` is a reward's in the sum. `train` holds trl.GRPOConfig's keys; `train.beta` is the
KL's coefficient, and adapts to `target_kl` (nats per token) where that is given. `train.scale_rewards` divides each
reward's advantages before they are mixed: `none` mixes rewards as they are, `batch` in units of their standard
deviations as in the paper, `group` (trl's default) of those among a prompt's completions.

`kl: sequence`, the default of mu and xi, is the KL of whole answers: a reward of every token, -beta (log pi - log
pi_0), summed from there to the answer's end, minus its mean over the prompt's completions. `kl: token` is trl's term
of the loss, the default of the other methods: there a token answers for the KL in its own context alone, and not for
that of the contexts it leads to, so that the policy learned is not the one that maximises reward minus beta KL.

`thresholds: {search: nelder_mead, metric: gold}` searches for thresholds while it trains, from where the policy starts
to those in the rewards' blocks and beyond, for the largest `gold` (a reward with `weight: 0`) on `eval_data`. What it
found is in the artifact, and `$constrained.helpful` is the threshold it found for `helpful`.

`trainer: ppo` learns a critic for each reward and one for the KL (`critics`) in the place of GRPO's mean over a
prompt's completions; the KL is a reward of every token there, too, as in the paper.

`proximal: 1.0` holds several steps on a rollout (`num_iterations`) by a `distance` from the policy that sampled it, in
the place of the clip, as in `grpo`.

A checkpoint holds the multipliers and the rollouts at hand: a run that was killed ends with the weights of one that
was not. A reward that fails (NaN, infinity, too few scores, an exception) stops the run with the completion named, at
a checkpoint of the last whole step; `on_failure: abstain | skip_group` goes on without, up to `max_failures` of a
rollout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import trl

from trimtab.pipelines.algorithms.advantages import CriticSettings
from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers, MultiplierSettings
from trimtab.pipelines.algorithms.objectives import METHODS, Fixed, Lagrangian, Objective, Saturating
from trimtab.pipelines.algorithms.searching import Searching, ThresholdSearch
from trimtab.pipelines.algorithms.target_surrogates import Distance
from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.forecasting import trainers
from trimtab.pipelines.forecasting.work import Held, Work
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.reward_blocks import ConstrainedReward
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.scoring import calibration
from trimtab.pipelines.stages import Metrics, TrainerStage
from trimtab.pipelines.training import online
from trimtab.pipelines.training.fit import fit

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature


# set by the methods, or without a meaning for them
UNUSED = {"reward_weights": "`weight` in the reward's block", "multi_objective_aggregation": "`scale_rewards`"}


@dataclass(kw_only=True)
class Constrained(TrainerStage):
    """`data` are prompts, whose further columns go to the rewards.

    `eval_data` is sampled and scored as `train.eval_strategy` says, and at the end.
    """

    model: trl.ModelConfig
    data: Annotated[Data, PROMPTS]
    eval_data: Annotated[Data | None, PROMPTS] = None
    rewards: dict[str, ConstrainedReward]
    method: Literal["mu", "xi", "all", "sat", "fixed"] = "mu"
    trainer: Literal["grpo", "ppo"] = "grpo"
    critics: CriticSettings = field(default_factory=CriticSettings)
    multipliers: MultiplierSettings = field(default_factory=MultiplierSettings)
    thresholds: ThresholdSearch | None = None
    target_kl: float | None = None
    kl: Literal["sequence", "token"] | None = None
    proximal: float | None = None
    distance: Distance | None = None
    train: trl.GRPOConfig

    neutral_when_empty: ClassVar[tuple[str, ...]] = (*TrainerStage.neutral_when_empty, "proximal", "distance")
    shows: ClassVar[Shows] = Shows(
        {
            "* and its threshold": ("train/rewards/*/mean", "train/thresholds/*"),
            "Multipliers": ("train/multipliers/*",),
            "lambda (multiplier in units of the task)": ("train/lambda/*",),
            "Rewards": ("train/rewards/*/mean",),
            "Best metric of the thresholds tried": ("train/search/best",),
            "Variance explained by the critics": ("train/critics/*/explained",),
            "KL (nats per token)": ("train/kl",),
            "Tokens": ("train/completions/mean_length",),
            "Entropy (nats per token)": ("train/entropy",),
        },
        ("reached/*", "eval/rewards/*/mean"),
        watches=("train/rewards/*/mean", "train/multipliers/*", "train/kl", "train/completions/mean_length"),
        table=True,
    )

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        searching = {"thresholds.patience": 1} if block.get("thresholds") else {}
        return {**super().small(block, miniature), **searching}

    @classmethod
    def by_micro_batch(cls, train: Mapping[str, Any]) -> bool:
        return online.by_micro_batch(train)

    def check(self, step: Step) -> None:
        if not self.rewards:
            raise RecipeError("name at least one reward", (*step.path, "rewards"))
        online.check_set_elsewhere(self, step, UNUSED)
        self._check_thresholds(step)
        self._check_weights(step)
        self._check_trainer(step)
        self._check_kl(step)
        online.check_proximal(self, step)
        if self.thresholds is not None:
            self._check_search(self.thresholds, step)
        if self.target_kl is not None and not self.target_kl > 0:
            raise RecipeError(f"must be above 0, got {self.target_kl}", (*step.path, "target_kl"))
        constraints = self._constraints(step)
        try:
            self._objective(constraints, step)
        except ValueError as error:
            raise RecipeError(str(error), (*step.path, "multipliers")) from error
        super().check(step)
        online.check_prompts_ahead(self, step)

    def _check_weights(self, step: Step) -> None:
        """Raises RecipeError where no reward counts, so that nothing would be learned."""
        if self.method == "fixed" and self.must_learn and not any(b.get("weight", 1.0) for b in self.rewards.values()):
            raise RecipeError("every reward has `weight: 0`: give one that is to be learned", (*step.path, "rewards"))

    def _check_thresholds(self, step: Step) -> None:
        """Raises RecipeError where the method has no use for a threshold that is there, or needs one that is not."""
        without = [name for name, block in self.rewards.items() if block.get("threshold") is None]
        trained = [name for name in without if self.rewards[name].get("weight", 1.0) != 0]
        if self.method in ("all", "sat") and trained:
            raise RecipeError(f"`method: {self.method}` needs one", (*step.path, "rewards", trained[0], "threshold"))
        if self.method in ("mu", "xi") and len(without) == len(self.rewards):
            raise RecipeError("no reward has a `threshold`: `method: fixed` maximises them", (*step.path, "method"))
        for name, block in self.rewards.items():
            if "constraint" in block and self.method not in ("mu", "xi"):
                message = f"`method: {self.method}` says what a threshold means; only mu and xi leave a choice"
                raise RecipeError(message, (*step.path, "rewards", name, "constraint"))
        if not self.train.beta > 0 and (self.target_kl is not None or (self.method in ("mu", "xi") and not without)):
            raise RecipeError(
                f"is {self.train.beta:g}, trl's default, and the KL to the start is what is to be kept small: try 0.1",
                (*step.path, "train", "beta"),
            )

    def _check_trainer(self, step: Step) -> None:
        """Raises RecipeError for what the trainer cannot do, or not on this machine."""
        if self.trainer == "ppo" and self.model.use_peft and self.critics.trunk == "separate":
            raise RecipeError("LoRA would train a whole second model: set `shared`", (*step.path, "critics", "trunk"))
        if self.trainer == "ppo" and self.train.use_vllm:
            raise RecipeError(
                "trl hands vLLM all that is trained, the critics' too, which vLLM refuses by name: leave it out",
                (*step.path, "train", "use_vllm"),
            )
        if self.trainer == "ppo":
            from trimtab.pipelines.training import optimizers

            optimizers.check_critics(self, step)
        online.check_sampler(self, step)

    @property
    def _has_sequence_kl(self) -> bool:
        by_default = self.trainer == "ppo" or self.method in ("mu", "xi")
        return by_default if self.kl is None else self.kl == "sequence"

    def _check_kl(self, step: Step) -> None:
        """Raises RecipeError where two keys say different things of the KL."""
        if self.trainer == "ppo" and self.kl == "token":
            message = "`trainer: ppo` has a critic for the KL, which is a reward of every token: leave it out"
            raise RecipeError(message, (*step.path, "kl"))
        if self._has_sequence_kl:
            instead = "`kl: token`, which has the KL in the loss"
            online.check_set_elsewhere(self, step, {"use_bias_correction_kl": instead})

    def _check_search(self, search: ThresholdSearch, step: Step) -> None:
        """Raises RecipeError where thresholds cannot be searched for, or not by that metric."""
        metric, place = search.metric, (*step.path, "thresholds")
        if self.method not in ("mu", "xi"):
            raise RecipeError("mu and xi hold rewards at thresholds that can be searched for", (*step.path, "method"))
        if metric not in self.rewards:
            hint = suggest(metric, self.rewards)
            raise RecipeError(f"{metric!r} is not one of the rewards{hint}", (*place, "metric"))
        if self.rewards[metric].get("weight", 1.0) != 0 or self.rewards[metric].get("threshold") is not None:
            raise RecipeError(f"{metric} is trained on: give it `weight: 0` and no threshold", (*place, "metric"))
        if self.eval_data is None:
            raise RecipeError("the metric is taken on `eval_data`: name prompts that are not trained on", place)
        if self.multipliers.settle is not None:
            message = "multipliers that stand still follow no threshold that moves: leave it out"
            raise RecipeError(message, (*step.path, "multipliers", "settle"))
        searched = (1 - search.settle) * self.train.max_steps
        if search.patience is not None and 0 < searched <= search.patience:
            raise RecipeError(
                f"a point may take {search.patience} steps, and the search has {searched:g}, and may find none: "
                "lower it, or raise `train.max_steps`",
                (*place, "patience"),
            )

    def work(self, known: Known) -> Work:
        has_trunk = self.trainer == "ppo" and self.critics.trunk == "separate"
        critics = [Held(known.model(self.model, "score"), is_trained=True)] if has_trunk else []
        looks_again = self._has_sequence_kl and self.train.beta > 0
        return trainers.online(self, known, known.rewards(self.rewards), critics, looks_again=looks_again)

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        from trimtab.pipelines.trainers.constrained_grpo import ConstrainedGRPOTrainer
        from trimtab.pipelines.trainers.constrained_ppo import ConstrainedPPOTrainer

        online.check_prompts(self, step)
        functions = online.reward_functions(self.rewards, step)
        constraints = self._constraints(step)
        objective = self._objective(constraints, step)
        for name, constraint in constraints.items():
            given = self.rewards[name]["threshold"]
            if isinstance(given, Mapping) and PartialState().is_main_process:
                print(f"    {name}: z {given['z']:g} is a threshold of {constraint.threshold:.4g}", flush=True)
        extra: dict[str, Any] = {"reward_funcs": functions, "objective": objective, "target_kl": self.target_kl}
        extra["proximal"] = online.proximal(self)
        if self.trainer == "ppo":
            metrics = fit(ConstrainedPPOTrainer, self, step, critics=self.critics, **extra)
        else:
            metrics = fit(ConstrainedGRPOTrainer, self, step, sequence_kl=self._has_sequence_kl, **extra)
        if isinstance(objective, Searching) and PartialState().is_main_process:
            result = objective.result()
            (step.output / "search.json").write_text(json.dumps(result, indent=1))
            (step.output / "thresholds.json").write_text(json.dumps(result["thresholds"], indent=1))
        return metrics | objective.report()

    def _constraints(self, step: Step) -> dict[str, Constraint]:
        """The rewards with a threshold, which is NaN while what it is relative to is still to be made."""
        thresholds = {name: calibration.threshold(name, block, step) for name, block in self.rewards.items()}
        return {
            name: Constraint(threshold, self.rewards[name].get("constraint", METHODS[self.method] or "equal"))
            for name, threshold in thresholds.items()
            if threshold is not None
        }

    def _objective(self, constraints: dict[str, Constraint], step: Step) -> Objective:
        weights = {name: block.get("weight", 1.0) for name, block in self.rewards.items()}
        if self.method == "fixed":
            return Fixed(weights)
        if self.method == "sat":
            return Saturating(weights, constraints)
        if self.method == "all":
            task = weights
        else:
            task = {name: weight for name, weight in weights.items() if name not in constraints}
        multipliers = Multipliers(constraints, self.multipliers)
        if self.thresholds is not None:
            return Searching(task, multipliers, self.thresholds, step.seed)
        return Lagrangian(task, multipliers)
