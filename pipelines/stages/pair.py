"""Kind `pair`: scored completions become preferences (or rankings) for `dpo`, `reward` and the like.

    pair: {completions: $score, reward: helpful}                        # best against worst of each prompt
    pair: {completions: $score, reward: {helpful: 1.0, brief: 0.2}, select: all, margin: 0.5}
    pair: {completions: $score, reward: helpful, select: ranked}        # prompt, completions best first: `reward`'s
                                                                        # listwise loss
Ties (within `margin`), completions of equal text and unscored ones are left out and counted.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

from pipelines import data
from pipelines.data import Data
from pipelines.errors import RecipeError
from pipelines.stages import Stage
from rewards import text

SCORED = (("prompt", "completion", "prompt_index", "scores"),)


@dataclass(kw_only=True)
class Pair(Stage):
    """`reward` is one reward of the scores or weights of several; `margin` is in the unit of their weighted sum."""

    completions: Data
    reward: str | dict[str, float]
    select: Literal["best_worst", "all", "ranked"] = "best_worst"
    margin: float = 0.0

    def check(self, step):
        data.check(self.completions, step, "completions", SCORED)

    def run(self, step):
        from pipelines import parts

        rows = data.load(self.completions, (*step.path, "completions"))
        known, weights = set(rows.features["scores"]), self._weights()
        for name in weights:
            if name not in known:
                raise RecipeError(f"no reward {name!r} in the scores ({', '.join(known)})", (*step.path, "reward"))
        groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            groups[row["prompt_index"]].append(row)
        counts: dict[str, int] = defaultdict(int)
        made = [new for group in groups.values() for new in self._select(group, weights, counts)]
        if not made:
            raise ValueError(f"no pairs: of {len(groups)} prompts {dict(counts)}. Sample more, or lower `margin`")
        parts.publish(step, made)
        gaps = [new["chosen_score"] - new["rejected_score"] for new in made if "chosen_score" in new]
        metrics = {"prompts": len(groups), "rows": len(made), **counts}
        return metrics | ({"mean_gap": sum(gaps) / len(gaps)} if gaps else {})

    def _weights(self) -> dict[str, float]:
        return {self.reward: 1.0} if isinstance(self.reward, str) else self.reward

    def _select(self, group: list[dict], weights: dict[str, float], counts: dict[str, int]) -> list[dict[str, Any]]:
        unique: dict[str, tuple[Any, float]] = {}
        for row in group:
            parts = [row["scores"][name] for name in weights]
            if None in parts:
                counts["unscored_dropped"] += 1
                continue
            answer = text(row["completion"])
            counts["duplicates_dropped"] += answer in unique
            score = sum(weight * part for weight, part in zip(weights.values(), parts, strict=True))
            unique.setdefault(answer, (row["completion"], score))
        from pipelines.algorithms import preference

        answers, scores = [a for a, _ in unique.values()], [s for _, s in unique.values()]
        prompt = group[0]["prompt"]
        if self.select == "ranked":
            order = preference.ranking(scores)
            kept = [at for n, at in enumerate(order) if n == 0 or scores[order[n - 1]] - scores[at] > self.margin]
            counts["ties_dropped"] += len(order) - len(kept)
            ranked = {"completions": [answers[at] for at in kept], "completion_scores": [scores[at] for at in kept]}
            return [{"prompt": prompt, **ranked}] if len(kept) > 1 else []
        pick = preference.best_worst if self.select == "best_worst" else preference.all_pairs
        made = []
        for chosen, rejected in pick(scores):
            if scores[chosen] - scores[rejected] <= self.margin:
                counts["ties_dropped"] += 1
                continue
            made.append({
                "prompt": prompt,
                "chosen": answers[chosen],
                "rejected": answers[rejected],
                "chosen_score": scores[chosen],
                "rejected_score": scores[rejected],
            })  # fmt: skip
        return made
