"""Kind `pair`: scored completions become preferences (or rankings) for `dpo`, `reward` and the like.

    pair: {completions: $score, reward: helpful}                        # best against worst of each prompt
    pair: {completions: $score, reward: {helpful: 1.0, brief: 0.2}, select: all, margin: 0.5}
    pair: {completions: $score, reward: helpful, select: ranked}        # all, best first: `reward`'s listwise loss
    pair: {completions: $score, reward: helpful, select: ends}          # the same with the best and the worst only
    pair: {completions: $score, reward: helpful, select: drawn}         # the same with two of them, drawn at random

Rows of `ranked`, `ends` and `drawn` are what `prefer` learns from: lists `completions`, `completion_scores` and
`win_probs` (mean over all K unique scored completions j, itself included, of sigmoid(score_scale (s_i - s_j));
arXiv 2405.00675) and, from completions with tokens as `sample` leaves them, `prompt_ids`, `completion_ids` and
`ref_logps` (log pi of the policy that sampled, in nats, summed over tokens, at temperature 1).

Ties (within `margin`), completions of equal text and unscored ones are left out and counted.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from trimtab.pipelines.data import loading
from trimtab.pipelines.data.forms import SCORED, TOKENS, Data
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Pair(Stage):
    """`reward` is one reward of the scores or weights of several; `margin` is in the unit of their weighted sum.

    `score_scale` times that unit is logits, which `win_probs` are made from: 1 for a reward model's own scores.
    """

    completions: Annotated[Data, SCORED]
    reward: str | dict[str, float]
    select: Literal["best_worst", "all", "ranked", "ends", "drawn"] = "best_worst"
    margin: float = 0.0
    score_scale: float = 1.0

    shows: ClassVar[Shows] = Shows(results=("rows", "mean_gap"))

    def check(self, step: Step) -> None:
        if not self.score_scale > 0:
            raise RecipeError(f"must be above 0, got {self.score_scale}", (*step.path, "score_scale"))
        super().check(step)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        rows = loading.load(self.completions, (*step.path, "completions"))
        known, weights = sorted(rows.features["scores"]), self._weights()
        for name in weights:
            if name not in known:
                raise RecipeError(f"no reward {name!r} in the scores ({', '.join(known)})", (*step.path, "reward"))
        groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            groups[row["prompt_index"]].append(row)
        counts: dict[str, int] = defaultdict(int)
        made = [new for group in groups.values() for new in self._select(group, weights, counts, step.seed)]
        if not made:
            raise ValueError(f"no pairs: of {len(groups)} prompts {dict(counts)}. Sample more, or lower `margin`")
        write_rows(step, made)
        gaps = [new["chosen_score"] - new["rejected_score"] for new in made if "chosen_score" in new]
        metrics = {"prompts": len(groups), "rows": len(made), **counts}
        return metrics | ({"mean_gap": sum(gaps) / len(gaps)} if gaps else {})

    def _weights(self) -> dict[str, float]:
        return {self.reward: 1.0} if isinstance(self.reward, str) else self.reward

    def _select(
        self, group: list[dict], weights: dict[str, float], counts: dict[str, int], seed: int
    ) -> list[dict[str, Any]]:
        from trimtab.pipelines.algorithms import preference, statistics

        unique: dict[str, tuple[dict, float]] = {}
        for row in group:
            score = statistics.weighted(row["scores"], weights)
            if score is None:
                counts["unscored_dropped"] += 1
                continue
            answer = text(row["completion"])
            counts["duplicates_dropped"] += answer in unique
            unique.setdefault(answer, (row, score))
        rows, scores = [row for row, _ in unique.values()], [score for _, score in unique.values()]
        if self.select == "ranked":
            order = preference.ranking(scores)
            kept = [at for n, at in enumerate(order) if n == 0 or scores[order[n - 1]] - scores[at] > self.margin]
            counts["ties_dropped"] += len(order) - len(kept)
            return [self._list(rows, scores, kept)] if len(kept) > 1 else []
        if self.select == "drawn":
            pairs = preference.drawn_pair(scores, f"{seed}-{group[0]['prompt_index']}")
        else:
            pairs = (preference.all_pairs if self.select == "all" else preference.best_worst)(scores)
        made = []
        for chosen, rejected in pairs:
            if scores[chosen] - scores[rejected] <= self.margin:
                counts["ties_dropped"] += 1
            elif self.select in ("ends", "drawn"):
                made.append(self._list(rows, scores, [chosen, rejected]))
            else:
                made.append({
                    "prompt": group[0]["prompt"],
                    "chosen": rows[chosen]["completion"],
                    "rejected": rows[rejected]["completion"],
                    "chosen_score": scores[chosen],
                    "rejected_score": scores[rejected],
                })  # fmt: skip
        return made

    def _list(self, rows: list[dict], scores: list[float], kept: list[int]) -> dict[str, Any]:
        """One row of the answers at `kept`, best first; the probabilities of winning are against all of `rows`."""
        from trimtab.pipelines.algorithms import preference

        wins = preference.win_probabilities(scores, self.score_scale)
        made = {
            "prompt": rows[0]["prompt"],
            "completions": [rows[at]["completion"] for at in kept],
            "completion_scores": [scores[at] for at in kept],
            "win_probs": [wins[at] for at in kept],
        }
        if rows[0].keys() >= set(TOKENS):
            made |= {
                "prompt_ids": rows[0]["prompt_ids"],
                "completion_ids": [rows[at]["completion_ids"] for at in kept],
                "ref_logps": [sum(rows[at]["logprobs"]) for at in kept],
            }
        return made
