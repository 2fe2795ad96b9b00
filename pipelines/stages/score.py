"""Kind `score`: every completion scored by any number of rewards.

    score:
      completions: $sample
      rewards: {helpful: {kind: reward_model, path: $helpful}, brief: {kind: length, target: 40}}

The dataset is that of the completions with a column `scores` (a struct: reward -> score, null where it abstained).
Swapping a reward scores the stored completions again and samples nothing.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from pipelines import data, plugins, tracking
from pipelines.data import Data
from pipelines.errors import RecipeError
from pipelines.plugins import RewardBlock
from pipelines.stages import Stage

COMPLETIONS = (("prompt", "completion"),)


@dataclass(kw_only=True)
class Score(Stage):
    """`batch_size` is completions per call of a reward: what a stopped run may have to score again."""

    completions: Data
    rewards: dict[str, RewardBlock]
    batch_size: int = 256

    def check(self, step):
        if not self.rewards:
            raise RecipeError("name at least one reward", (*step.path, "rewards"))
        data.check(self.completions, step, "completions", COMPLETIONS)

    def run(self, step):
        from pipelines import parts, training

        rows = data.load(self.completions, (*step.path, "completions"))
        cuts = range(0, len(rows), self.batch_size)
        scores: dict[str, list[float | None]] = {}
        for name, block in self.rewards.items():  # one reward in memory at a time
            reward = None

            def make(part: int, name: str = name, block: dict = block) -> list[dict[str, Any]]:
                nonlocal reward
                reward = reward or plugins.load("rewards", block, (*step.path, "rewards", name))
                first = part * self.batch_size
                batch = rows[first : first + self.batch_size]
                found = reward(prompts=batch.pop("prompt"), completions=batch["completion"], **_columns(batch))
                return [{"score": score} for score in _checked(found, batch["completion"], name, first)]

            parts.compute(step, name, len(cuts), make)
            scores[name] = parts.collect(step, name, len(cuts))["score"].to_pylist()
            training.release()
        merged = [{**row, "scores": {name: scores[name][i] for name in scores}} for i, row in enumerate(rows)]
        parts.publish(step, merged)
        tracking.table("scores", [{"prompt": data.plain(r["prompt"]), "completion": data.plain(r["completion"]),
                                   **r["scores"]} for r in merged[:20]])  # fmt: skip
        return {key: value for name in scores for key, value in _summary(name, scores[name]).items()}


def _columns(batch: dict[str, list]) -> dict[str, list]:
    return {key: values for key, values in batch.items() if key not in ("completion", "scores")}


def _checked(found: Any, completions: list, name: str, first: int) -> list[float | None]:
    """The scores as floats. Raises ValueError for a wrong number of them or one that is not a finite number."""
    found = list(found)
    if len(found) != len(completions):
        raise ValueError(f"reward {name!r} returned {len(found)} scores for {len(completions)} completions")
    for offset, score in enumerate(found):
        if score is not None and not (isinstance(score, int | float) and math.isfinite(score)):
            text = data.plain(completions[offset])[:80]
            raise ValueError(f"reward {name!r} gave {score!r} to completion {first + offset} ({text!r})")
    return [None if score is None else float(score) for score in found]


def _summary(name: str, scores: list[float | None]) -> dict[str, float]:
    given = [score for score in scores if score is not None]
    metrics = {f"rewards/{name}/abstained": 1 - len(given) / len(scores)}
    if given:
        metrics |= {f"rewards/{name}/mean": statistics.fmean(given), f"rewards/{name}/std": statistics.pstdev(given)}
    return metrics
