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
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal

from trimtab.pipelines.data.forms import ANSWERS, CONVERSATIONS, PROMPTS, Data
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.field_types import KeysOf, ModelName
from trimtab.pipelines.planning.reward_blocks import RewardBlock
from trimtab.pipelines.recording.artifacts import Keep
from trimtab.pipelines.sampling.settings import LOADING, Sampling
from trimtab.pipelines.scoring.combining import Missing
from trimtab.pipelines.stages import Stage, StepOptions

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class SelfConsuming(Sampling, Stage):
    """`retrain: warm` goes on from the round's own model, `fresh` starts every round from `base` (or the first model).

    `synthetic: replaced` trains on the last round's completions, `accumulated` on those of all rounds. `real_eval` is
    held-out real data, whose likelihood is a metric of each round. `curate` and `monitor` take those stages' keys.
    """

    model: Annotated[dict[str, Any], KeysOf(("trl.ModelConfig",))]
    prompts: Annotated[Data, PROMPTS]
    rewards: dict[str, RewardBlock]
    reward: str | dict[str, float] | None = None
    missing: Missing = "abstain"
    real: Annotated[Data | None, ANSWERS] = None
    real_eval: Annotated[Data | None, CONVERSATIONS] = None
    real_fraction: float = 0.2
    rounds: int = 3
    temperature: float = 1.0
    retrain: Literal["warm", "fresh"] = "warm"
    base: ModelName | None = None
    synthetic: Literal["replaced", "accumulated"] = "replaced"
    split_prompts: bool = False
    curate: Annotated[dict[str, Any], KeysOf(("curate",))] = field(default_factory=dict)
    monitor: Annotated[dict[str, Any], KeysOf(("monitor",))] = field(default_factory=dict)
    train: Annotated[dict[str, Any], KeysOf(("trl.SFTConfig",))] = field(default_factory=dict)
    keep: Keep = "all"

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterator[StepOptions]:
        loop = cls.as_written(name, options)
        start = loop._start(("stages", name))
        if loop.real_fraction == 0 and not loop.monitor.get("stop_if"):
            _warn(name)
        policy, models = start, [start]
        for number in range(1, loop.rounds + 1):
            yield from loop._sampling_steps(name, number, policy, cls.handed_on(options))
            yield loop._monitor_step(name, number, policy, start)
            yield loop._curate_step(name, number)
            yield loop._mix_step(name, number)
            yield loop._training_step(name, number, policy, start)
            policy = f"${name}-{number}"
            models.append(policy)
        watched = loop.rounds
        if loop.monitor.get("stop_if"):  # the last round's model is sampled once more for it
            watched += 1
            yield from loop._sampling_steps(name, watched, policy, cls.handed_on(options))
            yield loop._monitor_step(name, watched, policy, start)
        monitors = [f"${name}-{number}-monitor" for number in range(1, watched + 1)]
        yield name, "last_good", {"models": models, "monitors": monitors}

    def _start(self, path: tuple[str, ...]) -> str:
        """The model that the loop begins with."""
        if self.rounds < 1:
            raise RecipeError(f"must be at least 1, got {self.rounds}", (*path, "rounds"))
        if self.model.get("model_name_or_path") is None:
            raise RecipeError("required key is missing", (*path, "model", "model_name_or_path"))
        return self.model["model_name_or_path"]

    def _weights(self) -> dict[str, float]:
        weights = self.reward or dict.fromkeys(self.rewards, 1.0)
        return {weights: 1.0} if isinstance(weights, str) else weights

    def _loaded(self, model: str) -> dict[str, Any]:
        return {**{key: self.model[key] for key in LOADING if key in self.model}, "model_name_or_path": model}

    def _sampling_steps(self, name: str, number: int, policy: str, sampling: dict[str, Any]) -> Iterator[StepOptions]:
        if self.split_prompts and self.rounds > 1:
            sampling = {**sampling, "fold": [min(number, self.rounds), self.rounds]}
        sample, score = f"{name}-{number}-sample", f"{name}-{number}-score"
        yield sample, "sample", {"model": self._loaded(policy), "prompts": self.prompts, **sampling}
        yield score, "score", {"completions": f"${sample}", "rewards": self.rewards}

    def _monitor_step(self, name: str, number: int, policy: str, start: str) -> StepOptions:
        watching = {
            "reference": self._loaded(start),
            "on_limit": "stop",
            **self.monitor,
            "scored": f"${name}-{number}-score",
            "policy": self._loaded(policy),
        }
        if self.real_eval:
            watching["real"] = self.real_eval
        if self.synthetic == "replaced":  # what the theory is about
            theory = {"temperature": self.temperature, "real_fraction": self.real_fraction}
            watching["curation"] = {"reward": self._weights(), "missing": self.missing, **theory}
        if number > 1:
            watching |= {"first": f"${name}-1-score", "previous": f"${name}-{number - 1}-score"}
        return f"{name}-{number}-monitor", "monitor", watching

    def _curate_step(self, name: str, number: int) -> StepOptions:
        curating = {
            "completions": f"${name}-{number}-score",
            "reward": self._weights(),
            "missing": self.missing,
            "temperature": self.temperature,
            "round": number,
            "after": f"${name}-{number}-monitor",
            **self.curate,
        }
        return f"{name}-{number}-curate", "curate", curating

    def _mix_step(self, name: str, number: int) -> StepOptions:
        first = 1 if self.synthetic == "accumulated" else number
        curated = [f"${name}-{earlier}-curate" for earlier in range(first, number + 1)]
        real = {"real": self.real} if self.real else {}
        return f"{name}-{number}-mix", "mix", {"synthetic": curated, "real_fraction": self.real_fraction, **real}

    def _training_step(self, name: str, number: int, policy: str, start: str) -> StepOptions:
        begin = policy if self.retrain == "warm" else self.base or start
        model = {**self.model, "model_name_or_path": begin}
        evaluated = {"eval_data": self.real_eval} if self.real_eval else {}
        data = f"${name}-{number}-mix"
        training = {"model": model, "data": data, "train": self.train, "keep": self.keep}
        return f"{name}-{number}", "sft", {**training, **evaluated}


@cache
def _warn(name: str) -> None:
    """Once in a process, which may read its recipe several times."""
    logger.warning(
        "%s: without real data the loop goes to the maximisers of the reward and loses everything else; "
        "`monitor: {stop_if: {distinct_2: 0.5}}` ends it in time",
        name,
    )
