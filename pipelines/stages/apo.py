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

**Control.** With exact rewards, momentum is the same as a smaller beta (Theorem 4.1): rounds of APO(momentum, beta)
equal rounds of iterative DPO with beta / ratio(momentum, rounds), 1.23 for 0.3 and 3. `arm: matched` runs that;
`momentum: 0` runs iterative DPO with the same beta. A claim that momentum helps has to beat the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines import plugins
from pipelines.algorithms import momentum as theory
from pipelines.data import Data
from pipelines.errors import RecipeError
from pipelines.plugins import RewardBlock
from pipelines.stages import SAMPLING, Stage

LISTS = ("dpo", "ipo", "sppo", "orpo", "rrhf", "exo", "plackett_luce")


@dataclass(kw_only=True)
class Apo(Stage):
    """`reward` is what preferences are made by: one reward, or weights of several (by default all of them, 1 each).

    `loss` is one of `prefer`'s, or any `loss_type` of trl.DPOTrainer, which then loads a reference model. `select` is
    `ends` (best and worst), `drawn` (two of the K at random) or `ranked` (all K, for list-wise losses). With
    `split_prompts: false` every round sees all prompts. `epochs` is one number or one per round. `train` holds
    trl.SFTConfig's keys (trl.DPOConfig's for a loss of trl). Each round has a learning-rate schedule of its own, and
    with `optimizer: warm` the moments of the round before. `monitor` takes the keys of that stage.
    """

    model: dict[str, Any]
    prompts: Data
    rewards: dict[str, RewardBlock]
    reward: str | dict[str, float] | None = None
    rounds: int = 3
    momentum: float | list[float] = 0.3
    arm: Literal["accelerated", "matched"] = "accelerated"
    loss: str = "dpo"
    beta: float | list[float] = 0.1
    epochs: float | list[float] = 1.0
    num_generations: int = 5
    select: Literal["ends", "drawn", "ranked"] = "ends"
    split_prompts: bool = True
    optimizer: Literal["fresh", "warm"] = "fresh"
    generate: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 64
    engine: Literal["transformers", "vllm", "auto"] = "transformers"
    vllm: dict[str, Any] = field(default_factory=dict)
    monitor: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def expand(cls, name, kind, options, above):
        path = ("stages", name)
        own = {key: plugins.default(spec) for key, spec in cls.__dataclass_fields__.items()} | options
        for key in ("model", "prompts", "rewards"):
            if not own[key]:
                raise RecipeError("required key is missing", (*path, key))
        hints = plugins.hints(cls)
        for key in (
            "rounds",
            "momentum",
            "arm",
            "loss",
            "beta",
            "epochs",
            "select",
            "split_prompts",
            "optimizer",
            "train",
            "model",
        ):
            own[key] = plugins.coerce(own[key], hints[key], (*path, key))
        rounds = own["rounds"]
        if rounds < 1:
            raise RecipeError(f"must be at least 1, got {rounds}", (*path, "rounds"))
        momentum, beta, epochs = (_each(own[key], rounds, (*path, key)) for key in ("momentum", "beta", "epochs"))
        for value in momentum:
            if not 0 <= value < 1:
                raise RecipeError(f"must be at least 0 and below 1, got {value}", (*path, "momentum"))
        if own["arm"] == "matched":
            if len(set(momentum)) > 1:
                raise RecipeError("the matched arm is defined for one momentum, not one per round", (*path, "arm"))
            beta = [value / theory.ratio(momentum[0], rounds) for value in beta]
            momentum = [0.0] * rounds
        weights = own["reward"] or dict.fromkeys(own["rewards"], 1.0)
        start = own["model"].get("model_name_or_path")
        if start is None:
            raise RecipeError("required key is missing", (*path, "model", "model_name_or_path"))
        theta = hat = start
        watched = {"reference": {**_loading(own["model"]), "model_name_or_path": start}} | own["monitor"]
        for at in range(rounds):
            here = f"{name}-{at + 1}"
            sampling = {key: options[key] for key in SAMPLING if key in options}
            if own["split_prompts"] and rounds > 1:
                sampling["fold"] = [at + 1, rounds]
            yield f"{here}-sample", "sample", {
                "model": {**_loading(own["model"]), "model_name_or_path": theta},
                "prompts": own["prompts"],
                "num_generations": own["num_generations"],
                **sampling,
            }  # fmt: skip
            yield f"{here}-score", "score", {"completions": f"${here}-sample", "rewards": own["rewards"]}
            watching = dict(watched, scored=f"${here}-score")
            if at:
                watching["first"] = f"${name}-1-score"
                if momentum[at - 1]:
                    watching["trained"] = {**_loading(own["model"]), "model_name_or_path": hat}
            yield f"{here}-monitor", "monitor", watching
            listed = own["loss"] in LISTS
            pairing = {"select": own["select"]} if listed else {}
            yield f"{here}-pair", "pair", {"completions": f"${here}-score", "reward": weights, **pairing}
            model = {**own["model"], "model_name_or_path": theta}
            train = {**own["train"], "num_train_epochs": epochs[at]}
            last = name if at == rounds - 1 else here
            training = {"model": model, "data": f"${here}-pair"}
            if own["optimizer"] == "warm":
                training |= {"keep_optimizer": True} if at < rounds - 1 else {}
                training |= {"optimizer": hat} if at else {}
            if listed:
                yield last, "prefer", {**training, "loss": own["loss"], "beta": beta[at], "train": train}
            else:
                train |= {"loss_type": own["loss"], "beta": beta[at]}
                yield last, "dpo", {**training, "train": train}
            if at < rounds - 1:
                before, hat = hat, f"${here}"
                theta = hat
                if momentum[at]:
                    theta = f"${here}-extrapolate"
                    options_ = {"new": hat, "previous": before, "momentum": momentum[at]}
                    yield f"{here}-extrapolate", "extrapolate", options_


def _each(value: float | list[float], rounds: int, path: tuple[str, ...]) -> list[float]:
    """One value for each round."""
    if not isinstance(value, list):
        return [value] * rounds
    if len(value) != rounds:
        raise RecipeError(f"expected one number, or {rounds} for {rounds} rounds, got {value}", path)
    return value


def _loading(model: dict[str, Any]) -> dict[str, Any]:
    """How a model is loaded, without its adapters, which have been merged into it."""
    return {key: value for key, value in model.items() if key in ("dtype", "attn_implementation", "trust_remote_code")}
