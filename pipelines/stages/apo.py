"""Kind `apo`: accelerated preference optimisation, momentum over iterative DPO, IPO or SPPO (arXiv 2410.06293).

    apo:
      model: {model_name_or_path: $sft}
      prompts: $prompts
      rewards: {helpful: {kind: reward_model, path: $helpful}}
      rounds: 3
      momentum: 0.3               # 0 is iterative DPO; a list gives one for each round
      beta: [0.01, 0.1, 1.0]      # one for all rounds, or one each
      loss: dpo
      train: {learning_rate: 5e-7}

Round t, with theta_0 = hat_0 the model given:

    sample    K completions of each prompt of the t-th fold, from theta_{t-1}
    score     by every reward, `monitor` then says what has become of the policy
    pair      the best against the worst by `reward`
    prefer    hat_t = argmin loss, starting at theta_{t-1}, which is also the reference: its log-probabilities are
              those of sampling, and no second model is loaded
    extrapolate   theta_t = hat_t + momentum (hat_t - hat_{t-1}), on weights

The artifact is the last hat, which is *not* extrapolated. `$apo-1`, `$apo-2` are those of the rounds before, and
`$apo-1-extrapolate` the extrapolated one. trl's `loss_type: apo_zero` is another method: anchored preference
optimisation.

**Controls.** With exact rewards, momentum is the same as smaller betas (Theorem 4.1): its rounds end where those of
iterative DPO with b_i / c_i end, c = 1.39, 1.3, 1 for a momentum of 0.3 and three rounds, whatever the betas, the
momenta and the rewards of the rounds are. `arm: matched` runs that. With few steps of Adam, which hardly sees beta,
momentum is a larger learning rate: `arm: rate` is iterative DPO with that of round i times 1 + momentum. Where rounds
overfit few labels, momentum is a cure for what stopping cures: `arm: early` is iterative DPO that holds a fifth of
every round's prompts out, looks at them ten times, and goes on from where their preferences, by the same reward, are
predicted best. `momentum: 0` is iterative DPO with the same beta. A claim that momentum helps has to beat the first
three.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from trimtab.pipelines.algorithms import drift
from trimtab.pipelines.algorithms import momentum as theory
from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.importing.starting import Start
from trimtab.pipelines.planning import kinds, upstream
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.field_types import KeysOf, WordOf, documented_values
from trimtab.pipelines.planning.optimizer_blocks import STATE, OptimizerBlock
from trimtab.pipelines.planning.reward_blocks import RewardBlock
from trimtab.pipelines.recording.artifacts import Keep
from trimtab.pipelines.sampling.settings import LOADING, Sampling
from trimtab.pipelines.scoring.combining import Missing
from trimtab.pipelines.stages import Stage, StepOptions

HELD_OUT = 0.2  # of a round's prompts, where the arm stops by them
STOPPING = {
    **{"eval_strategy": "steps", "eval_steps": 0.1, "save_strategy": "steps", "save_steps": 0.1},
    **{"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": False},
}
FIRST = """\
  reward:
    model: {model_name_or_path: $base}
    data: {path: $rows, eval_fraction: 0.05}
    batch_size: 64
    train: {learning_rate: 1e-5, num_train_epochs: 1, max_length: 2048}

  apo:
    model: {model_name_or_path: $base%(adapter)s}
    prompts: {path: $rows}
    rewards: {helpful: {kind: reward_model, path: $reward}}
    rounds: 3
    num_generations: 4
    beta: 0.1
    generate: {max_new_tokens: 512}
    train: {learning_rate: %(rate)s, max_length: 2048}

  evaluate:
    policies: {base: $base, apo: $apo}
    prompts: {path: $rows, max_rows: 200}
    rewards:
      helpful: {kind: reward_model, path: $reward}
      brief: {kind: length, target: 200, at_most: true}
    generate: {max_new_tokens: 512}

  report: {}
"""


def losses_of_trl() -> list[str]:
    """The words of trl.DPOConfig's `loss_type`."""
    return documented_values(upstream.outline("DPOConfig"), "loss_type")


@dataclass(kw_only=True)
class Apo(Sampling, Stage):
    """`reward` is what preferences are made by: one reward, or weights of several (by default all of them, 1 each).

    `missing` says what becomes of a completion that one of them has abstained from, as in `pair`. `loss` is one of
    `prefer`'s, or any `loss_type` of trl.DPOTrainer, which then loads a reference model. `select` is `ends` (best and
    worst), `drawn` (two of the K at random) or `ranked` (all K, for list-wise losses). With `split_prompts: false`
    every round sees all prompts. `epochs` is one number or one per round. `train` holds trl.SFTConfig's keys
    (trl.DPOConfig's for a loss of trl). Each round has a learning-rate schedule of its own, and with `optimizer: warm`
    (or `state: warm` in its block) the optimizer's state of the round before; by default it is `fresh`. `monitor`
    takes the keys of that stage, `keep` is that of every training.
    """

    model: Annotated[dict[str, Any], KeysOf(("trl.ModelConfig",))]
    prompts: Annotated[Data, PROMPTS]
    rewards: dict[str, RewardBlock]
    reward: str | dict[str, float] | None = None
    missing: Missing = "abstain"
    rounds: int = 3
    momentum: float | list[float] = 0.3
    arm: Literal["accelerated", "matched", "rate", "early"] = "accelerated"
    loss: Annotated[str, WordOf(kinds.LOSSES, losses_of_trl)] = "dpo"
    beta: float | list[float] = 0.1
    epochs: float | list[float] = 1.0
    num_generations: int = 5
    select: Literal["ends", "drawn", "ranked"] = "ends"
    split_prompts: bool = True
    optimizer: OptimizerBlock = None
    monitor: Annotated[dict[str, Any], KeysOf(("monitor",))] = field(default_factory=dict)
    train: Annotated[dict[str, Any], KeysOf(("trl.SFTConfig", "trl.DPOConfig"))] = field(default_factory=dict)
    keep: Keep = "all"

    starts: ClassVar[Start | None] = Start(
        "pairs to a reward model, then three rounds on the policy's own answers, and an evaluation",
        "prompt, chosen, rejected",
        rate=5e-7,
        stages=FIRST,
    )

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterator[StepOptions]:
        loop = cls.as_written(name, options)
        momentum, beta = loop._momentum_and_beta(("stages", name))
        changes = loop._changes(("stages", name))
        epochs = loop._per_round("epochs", ("stages", name))
        state = (loop.optimizer or {}).get(STATE, "fresh")
        if state not in ("fresh", "warm"):
            message = f"expected fresh or warm in a loop, or a `class`, got {state!r}"
            raise RecipeError(message, ("stages", name, "optimizer"))
        if loop.num_generations < 2:
            message = f"a preference needs two completions of a prompt, got {loop.num_generations}"
            raise RecipeError(message, ("stages", name, "num_generations"))
        if loop.rounds == 1:
            for key in filter(drift.OF_FIRST.__contains__, loop.monitor.get("stop_if") or {}):
                message = "is a multiple of the first round's, and there is no other: raise `rounds`"
                raise RecipeError(message, ("stages", name, "monitor", "stop_if", key))
        start = loop.model.get("model_name_or_path")
        if start is None:
            raise RecipeError("required key is missing", ("stages", name, "model", "model_name_or_path"))
        before, trained, policy = start, start, start  # hat of the round before, of this one, and theta
        for number in range(1, loop.rounds + 1):
            round_name, last = f"{name}-{number}", number == loop.rounds
            yield from loop._sampling_steps(round_name, policy, number, cls.handed_on(options))
            yield loop._monitor_step(name, number, start, trained if number > 1 and momentum[number - 2] else None)
            yield loop._pair_step(round_name)
            yield loop._training_step(
                name if last else round_name,
                data=f"${round_name}-pair",
                policy=policy,
                warm=trained if number > 1 else None,
                last=last,
                beta=beta[number - 1],
                epochs=epochs[number - 1],
                changes=changes[number - 1],
            )
            if last:
                return
            before, trained = trained, f"${round_name}"
            policy = trained
            if momentum[number - 1]:
                policy = f"${round_name}-extrapolate"
                extrapolating = {"new": trained, "previous": before, "momentum": momentum[number - 1]}
                yield f"{round_name}-extrapolate", "extrapolate", extrapolating

    def _momentum_and_beta(self, path: tuple[str, ...]) -> tuple[list[float], list[float]]:
        """Both for each round, as the arm has them."""
        if self.rounds < 1:
            raise RecipeError(f"must be at least 1, got {self.rounds}", (*path, "rounds"))
        momentum, beta = self._per_round("momentum", path), self._per_round("beta", path)
        for value in momentum:
            if not 0 <= value < 1:
                raise RecipeError(f"must be at least 0 and below 1, got {value}", (*path, "momentum"))
        if self.arm == "accelerated":
            return momentum, beta
        return [0.0] * self.rounds, theory.matched(beta, momentum) if self.arm == "matched" else beta

    def _changes(self, path: tuple[str, ...]) -> list[dict[str, Any]]:
        """What the arm changes of `train`, for each round."""
        if self.arm == "early" and (self.optimizer or {}).get(STATE) == "warm":
            message = "the arm goes back to an earlier step, whose moments are not kept: leave it out"
            raise RecipeError(message, (*path, "optimizer"))
        if self.arm != "rate":
            return [STOPPING if self.arm == "early" else {}] * self.rounds
        rate = self.train.get("learning_rate")
        if rate is None:
            message = "the arm multiplies `train.learning_rate`: write which one that is"
            raise RecipeError(message, (*path, "arm"))
        momentum = self._per_round("momentum", path)
        return [{"learning_rate": float(rate) * (1 + value)} for value in momentum]

    def _per_round(self, key: str, path: tuple[str, ...]) -> list[float]:
        """One value for each round."""
        value, rounds = getattr(self, key), self.rounds
        if not isinstance(value, list):
            return [value] * rounds
        if len(value) != rounds:
            raise RecipeError(f"expected one number, or {rounds} for {rounds} rounds, got {value}", (*path, key))
        return value

    def _loaded(self, model: str) -> dict[str, Any]:
        return {**{key: value for key, value in self.model.items() if key in LOADING}, "model_name_or_path": model}

    def _sampling_steps(
        self, round_name: str, policy: str, number: int, sampling: dict[str, Any]
    ) -> Iterator[StepOptions]:
        if self.split_prompts and self.rounds > 1:
            sampling = {**sampling, "fold": [number, self.rounds]}
        sampling = {"model": self._loaded(policy), "prompts": self.prompts, **sampling}
        yield f"{round_name}-sample", "sample", sampling
        yield f"{round_name}-score", "score", {"completions": f"${round_name}-sample", "rewards": self.rewards}

    def _monitor_step(self, name: str, number: int, start: str, trained: str | None) -> StepOptions:
        """`trained` is the policy before its extrapolation, where there was one."""
        watched = {"reference": self._loaded(start), **self.monitor}
        watched["scored"] = f"${name}-{number}-score"
        if number > 1:
            watched["first"] = f"${name}-1-score"
        if trained is not None:
            watched["trained"] = self._loaded(trained)
        return f"{name}-{number}-monitor", "monitor", watched

    def _pair_step(self, round_name: str) -> StepOptions:
        weights = self.reward or dict.fromkeys(self.rewards, 1.0)
        scored = {"completions": f"${round_name}-score", "reward": weights}
        select = {"select": self.select} if self._has_list_loss else {}
        return f"{round_name}-pair", "pair", {**scored, "missing": self.missing, **select}

    def _training_step(
        self,
        name: str,
        *,
        data: str,
        policy: str,
        warm: str | None,
        last: bool,
        beta: float,
        epochs: float,
        changes: dict[str, Any],
    ) -> StepOptions:
        """`warm` is the model beside which the optimizer's state lies."""
        model = {**self.model, "model_name_or_path": policy}
        rows = {"path": data, "eval_fraction": HELD_OUT} if self.arm == "early" else data
        training: dict[str, Any] = {"model": model, "data": rows, "keep": self.keep}
        optimizer = dict(self.optimizer or {})
        if optimizer.pop(STATE, "fresh") == "warm":
            training |= {} if last else {"keep_optimizer": True}
            optimizer |= {STATE: warm} if warm else {}
        training |= {"optimizer": optimizer} if optimizer else {}
        train = {**self.train, **changes, "num_train_epochs": epochs}
        if self._has_list_loss:
            return name, "prefer", {**training, "loss": self.loss, "beta": beta, "train": train}
        return name, "dpo", {**training, "train": {**train, "loss_type": self.loss, "beta": beta}}

    @property
    def _has_list_loss(self) -> bool:
        return self.loss in kinds.words(kinds.LOSSES)
