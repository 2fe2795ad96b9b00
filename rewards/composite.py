"""Reward kind `composite`: several rewards as one.

    rewards:
      answer:
        kind: composite
        combine: sigmoid_gate            # sigmoid(scale * quality) + (correct - 1)
        gate: correct
        scale: 0.5
        rewards:
          quality: {kind: reward_model, path: $helpful}
          correct: {kind: my_team.rewards.correct}
      brief:
        kind: composite                  # 0 without a boxed answer, else 2 * short + varied
        rewards:
          boxed: {kind: pattern, regex: '\\\\boxed\\{.+\\}'}
          short: {kind: length, target: 40}
          varied: {kind: repetition}
        gate: boxed
        weights: {short: 2.0}
        clip: {short: [-1, 0], total: [-2, 2]}

A part is any reward, a composite included.
"""

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab.rewards import Outcome, Reward, RewardFailure, outcomes, settled


@dataclass(kw_only=True)
class Composite:
    """The scores s of the parts, each first clipped to `clip[part]`, as one score, clipped to `clip["total"]`.

    - `sum`: the sum of weights[part] * s, a weight being 1 unless given
    - `product`: the product of s
    - `sigmoid_gate`: sigmoid(scale * r_m) + (r_v - 1), r_v the score of `gate` and r_m the weighted sum of the others;
      with r_v of 0 or 1 whatever passes the gate beats whatever does not (Qwen2.5-Math,
      https://arxiv.org/abs/2409.12122, where scale is 0.5)

    With `gate`, a sum or a product is that of the other parts where the gate's score is at least `at_least`, and
    `otherwise` elsewhere. Where a part abstains the composite abstains too, or with `missing: ignore` goes on without
    it, but never without its gate; it abstains when nothing is left to combine. A part's failure is the composite's.
    Each part's own scores go to `log_extra` under its name, and what a part logs itself under `part/name`. Raises
    ValueError for names and options that do not go together.
    """

    rewards: dict[str, Reward]
    combine: Literal["sum", "product", "sigmoid_gate"] = "sum"
    weights: dict[str, float] = field(default_factory=dict)
    gate: str | None = None
    at_least: float = 0.5
    otherwise: float = 0.0
    scale: float = 1.0
    clip: dict[str, list[float]] = field(default_factory=dict)
    missing: Literal["abstain", "ignore"] = "abstain"

    def __post_init__(self) -> None:
        if not self.rewards:
            raise ValueError("composite: rewards is empty: name at least one part")
        if "total" in self.rewards:
            raise ValueError("composite: no part can be called 'total', which is the combination's name in clip")
        if self.gate is not None:
            _check_names("gate", [self.gate], self.rewards)
            if len(self.rewards) == 1:
                raise ValueError("composite: the gate is the only part: there is nothing behind it")
        _check_names("weights", self.weights, self.rewards)
        _check_names("clip", self.clip, [*self.rewards, "total"])
        if self.gate in self.weights:
            raise ValueError(f"composite: {self.gate!r} is the gate, which has no weight")
        if self.weights and self.combine == "product":
            raise ValueError("composite: a product has no weights")
        if self.gate is None and self.combine == "sigmoid_gate":
            raise ValueError("composite: sigmoid_gate needs `gate`, the name of the part that gates")
        if self.scale != 1.0 and self.combine != "sigmoid_gate":
            raise ValueError("composite: scale belongs to sigmoid_gate")
        hard = self.gate is not None and self.combine != "sigmoid_gate"
        if (self.at_least, self.otherwise) != (0.5, 0.0) and not hard:
            raise ValueError("composite: at_least and otherwise belong to a sum or a product with a gate")
        for name, limits in self.clip.items():
            if len(limits) != 2 or not limits[0] <= limits[1]:
                raise ValueError(f"composite: clip.{name} must be [low, high], got {list(limits)}")

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        answers = ask(self.rewards, prompts, completions, columns)
        rows = zip(*answers.values(), strict=True)
        return settled([self._combined(dict(zip(answers, row, strict=True))) for row in rows])

    def _combined(self, row: dict[str, Outcome]) -> Outcome:
        if (failure := failed(row)) is not None:
            return failure
        scores = {name: self._clipped(name, score) for name, score in row.items() if isinstance(score, float)}
        if len(scores) < len(row) and (self.missing == "abstain" or self.gate not in (None, *scores)):
            return None
        gate = None if self.gate is None else scores.pop(self.gate)
        if gate is not None and self.combine != "sigmoid_gate" and gate < self.at_least:
            return self._clipped("total", self.otherwise)
        if not scores:
            return None
        if self.combine == "product":
            return self._clipped("total", math.prod(scores.values()))
        total = sum(self.weights.get(name, 1.0) * score for name, score in scores.items())
        if self.combine == "sigmoid_gate" and gate is not None:
            total = (1 + math.tanh(self.scale * total / 2)) / 2 + (gate - 1)  # the sigmoid that cannot overflow
        return self._clipped("total", total)

    def _clipped(self, name: str, score: float) -> float:
        low, high = self.clip.get(name, (-math.inf, math.inf))
        return min(max(score, low), high)


def ask(
    rewards: Mapping[str, Reward], prompts: list, completions: list, columns: Mapping[str, Any]
) -> dict[str, list[Outcome]]:
    """What every one of the rewards says, by name, one outcome per completion; their scores are logged as well.

    What a reward logs itself gets its name in front: of two that log the same column, trl would make one of twice the
    length.
    """
    answers = {}
    for name, reward in rewards.items():
        passed = dict(columns)
        for log in columns.keys() & {"log_extra", "log_metric"}:
            passed[log] = lambda key, value, log=log, name=name: columns[log](f"{name}/{key}", value)
        answers[name] = outcomes(reward, prompts, completions, name=name, **passed)
        if "log_extra" in columns:
            scores = [None if isinstance(outcome, RewardFailure) else outcome for outcome in answers[name]]
            columns["log_extra"](name, scores)
    return answers


def failed(row: Mapping[str, Outcome]) -> RewardFailure | None:
    """The first failure in a completion's outcomes by part, with the part's name in its reason."""
    for name, outcome in row.items():
        if isinstance(outcome, RewardFailure):
            return outcome.reworded(f"part {name!r}: {outcome.reason}")
    return None


def _check_names(option: str, names: Iterable[str], parts: Collection[str]) -> None:
    """Raises ValueError for a name that is not one of a part."""
    for name in names:
        if name not in parts:
            near = difflib.get_close_matches(str(name), list(parts), n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"composite: {option}: no part {name!r}{hint} (parts: {', '.join(parts)})")
