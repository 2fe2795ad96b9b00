"""The completions of a prompt that are kept, by its scores or by a choice that was made elsewhere."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from trimtab.pipelines.algorithms import curation, statistics

Group = list[dict[str, Any]]  # the completions of a prompt, each with its `score`


class Chosen:
    """The rows that are chosen, and what there is to say of each prompt's choice: `means` over prompts are metrics."""

    def __init__(self, number: int, policy: str | None):
        self.origin = {"round": number, "policy": policy}
        self.series: dict[str, list[float]] = defaultdict(list)

    def by_choice(self, group: Group, best: Group) -> Group:
        """What was chosen elsewhere, best first."""
        self._note_rewards(group, best)
        return [self._row(row, rank, None, "choice") for rank, row in enumerate(best, start=1)]

    def by_reward(self, group: Group, keep: int, temperature: float, seed: str) -> Group:
        """The completions that the reward chooses; a prompt with fewer scored ones keeps those."""
        group = [row for row in group if row["score"] is not None]
        if not group:
            return []
        scores = [row["score"] for row in group]
        drawn = curation.choose(scores, min(keep, len(group)), temperature, seed)
        chances = curation.turns(scores, drawn, temperature)
        self._note_rewards(group, [group[i] for i in drawn])
        ranks = [1 + sum(score > scores[i] for score in scores) for i in drawn]
        entropy = curation.entropy(curation.probabilities(scores, temperature))
        self.series["entropy"].append(entropy)
        if len(group) > 1:
            self.series["entropy_share"].append(entropy / math.log(len(group)))
        if keep == 1 and 0 < temperature < math.inf:  # what the theorem is about
            weights, expected, guaranteed = curation.increments(scores, temperature)
            self.series["increment/realised"].append(float(weights[drawn[0]] - weights.mean()))
            self.series["increment/expected"].append(expected)
            self.series["increment/guaranteed"].append(guaranteed)
        rows = zip(drawn, ranks, chances, strict=True)
        return [self._row(group[i], rank, chance, "reward") for i, rank, chance in rows]

    def means(self) -> dict[str, float]:
        """Means over prompts."""
        means = {name: statistics.mean_stderr(values)[0] for name, values in self.series.items()}
        realised = self.series.get("increment/realised", [])
        return means | ({"increment/stderr": statistics.mean_stderr(realised)[1]} if len(realised) > 1 else {})

    def _note_rewards(self, group: Group, best: Group) -> None:
        scores, of_best = ([row["score"] for row in rows if row["score"] is not None] for rows in (group, best))
        if of_best:
            self.series["reward/kept"].append(sum(of_best) / len(of_best))
            self.series["reward/all"].append(sum(scores) / len(scores))

    def _row(self, row: dict[str, Any], rank: int, probability: float | None, chosen_by: str) -> dict[str, Any]:
        return {**row, **self.origin, "rank": rank, "probability": probability, "chosen_by": chosen_by}
