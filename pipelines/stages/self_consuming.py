"""Kind `self_consuming`: a model retrained, round by round, on what it has said and a preference has chosen.

    self_consuming:
      model: {model_name_or_path: $sft}
      prompts: $prompts
      real: $sft_data               # what it was trained on: keeps the loop from collapsing
      rewards: {helpful: {kind: reward_model, path: $helpful}}
      rounds: 3
      num_generations: 4            # K
      temperature: 1.0              # of the choice: 0 keeps the best of K, .inf any
      real_fraction: 0.2            # 1 / (1 + lambda)
      train: {learning_rate: 1e-5}

Round t: `sample` K completions per prompt, `score` them, `monitor` the policy, `curate` one of them by
softmax(r / temperature), `mix` with real rows, `sft`. With unlimited data a round is
p_{t+1} = (p_0 + lambda p_t H_t) / (1 + lambda), H_t being K times the chance of being chosen (Ferbach et al. 2024,
arXiv 2407.09499); without real data the loop goes to the maximisers of the reward and loses everything else.

`monitor: {stop_if: {...}}` ends the loop, which then returns the last good round's model; that of the last round is
sampled once more for it. **Controls**: `temperature: .inf` (chosen at random, equal budget) and `real_fraction: 1` (no
synthetic data, as many rows and steps).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from pipelines import plugins
from pipelines.data import Data
from pipelines.errors import RecipeError
from pipelines.plugins import RewardBlock
from pipelines.stages import SAMPLING, Stage

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class SelfConsuming(Stage):
    """`retrain: warm` goes on from the round's own model, `fresh` starts every round from `base` (or the first model).

    `synthetic: replaced` trains on the last round's completions, `accumulated` on those of all rounds. `real_eval` is
    held-out real data, whose likelihood is a metric of each round. `curate` and `monitor` take those stages' keys.
    """

    model: dict[str, Any]
    prompts: Data
    rewards: dict[str, RewardBlock]
    reward: str | dict[str, float] | None = None
    real: Data | None = None
    real_eval: Data | None = None
    real_fraction: float = 0.2
    rounds: int = 3
    num_generations: int = 4
    temperature: float = 1.0
    retrain: Literal["warm", "fresh"] = "warm"
    base: str | None = None
    synthetic: Literal["replaced", "accumulated"] = "replaced"
    split_prompts: bool = False
    generate: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 64
    engine: Literal["transformers", "vllm", "auto"] = "transformers"
    vllm: dict[str, Any] = field(default_factory=dict)
    curate: dict[str, Any] = field(default_factory=dict)
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
        for (
            key
        ) in "rounds real_fraction temperature retrain synthetic split_prompts train model curate monitor".split():
            own[key] = plugins.coerce(own[key], hints[key], (*path, key))
        rounds, start = own["rounds"], own["model"].get("model_name_or_path")
        if rounds < 1:
            raise RecipeError(f"must be at least 1, got {rounds}", (*path, "rounds"))
        if start is None:
            raise RecipeError("required key is missing", (*path, "model", "model_name_or_path"))
        if own["real_fraction"] == 0 and not own["monitor"].get("stop_if"):
            _warn(name)
        weights = own["reward"] or dict.fromkeys(own["rewards"], 1.0)
        if isinstance(weights, str):
            weights = {weights: 1.0}
        loading = {key: own["model"][key] for key in ("dtype", "attn_implementation") if key in own["model"]}
        policy, models, curated, monitors = start, [start], [], []
        for at in range(1, rounds + 1 + bool(own["monitor"].get("stop_if"))):
            here = f"{name}-{at}"
            sampling = {key: options[key] for key in SAMPLING if key in options}
            if own["split_prompts"] and rounds > 1:
                sampling["fold"] = [min(at, rounds), rounds]
            model = {**loading, "model_name_or_path": policy}
            yield f"{here}-sample", "sample", {"model": model, "prompts": own["prompts"],
                                               "num_generations": own["num_generations"], **sampling}  # fmt: skip
            yield f"{here}-score", "score", {"completions": f"${here}-sample", "rewards": own["rewards"]}
            watching = {"reference": {**loading, "model_name_or_path": start}, "on_limit": "stop", **own["monitor"],
                        "scored": f"${here}-score", "policy": model}  # fmt: skip
            if own["real_eval"]:
                watching["real"] = own["real_eval"]
            if own["synthetic"] == "replaced":  # what the theory is about
                theory = {key: own[key] for key in ("temperature", "real_fraction")}
                watching["curation"] = {"reward": weights, **theory}
            if at > 1:
                watching |= {"first": f"${name}-1-score", "previous": f"${name}-{at - 1}-score"}
            yield f"{here}-monitor", "monitor", watching
            monitors.append(f"${here}-monitor")
            if at > rounds:
                break
            yield f"{here}-curate", "curate", {
                "completions": f"${here}-score",
                "reward": weights,
                "temperature": own["temperature"],
                "round": at,
                "after": monitors[-1],
                **own["curate"],
            }  # fmt: skip
            curated = [*(curated if own["synthetic"] == "accumulated" else []), f"${here}-curate"]
            mixing = {"synthetic": curated, "real_fraction": own["real_fraction"]}
            if own["real"]:
                mixing["real"] = own["real"]
            yield f"{here}-mix", "mix", mixing
            begin = policy if own["retrain"] == "warm" else own["base"] or start
            training = {"model": {**own["model"], "model_name_or_path": begin}, "data": f"${here}-mix",
                        "train": own["train"]}  # fmt: skip
            if own["real_eval"]:
                training["eval_data"] = own["real_eval"]
            yield here, "sft", training
            policy = f"${here}"
            models.append(policy)
        yield name, "last_good", {"models": models, "monitors": monitors}


@cache
def _warn(name: str) -> None:
    """Once in a process, which may read its recipe several times."""
    logger.warning("%s: without real data the loop goes to the maximisers of the reward and loses everything else; "
                   "`monitor: {stop_if: {distinct_2: 0.5}}` ends it in time", name)  # fmt: skip
