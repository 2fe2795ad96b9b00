"""Kind `pair`: scored completions become preferences (or rankings) for `dpo`, `reward` and the like.

    pair: {completions: $score, reward: helpful}                        # best against worst of each prompt
    pair: {completions: $score, reward: {helpful: 1.0, brief: 0.2}, select: all, margin: 0.5}
    pair: {completions: $score, reward: helpful, select: ranked}        # all, best first: `reward`'s listwise loss
    pair: {completions: $score, reward: right, select: grouped}         # all, with ties: its loss `all_pairs`
    pair: {completions: $score, reward: helpful, select: ends}          # as ranked, the best and the worst only
    pair: {completions: $score, reward: helpful, select: drawn}         # as ranked, two of them, drawn at random
    pair: {completions: $score, reward: right, select: unpaired, threshold: 0.5}   # each with a label, good above it

Rows of `ranked`, `grouped`, `ends` and `drawn` are what `prefer` learns from: lists `completions`,
`completion_scores` and `win_probs` (mean over all K unique scored completions j, itself included, of
sigmoid(score_scale (s_i - s_j)); arXiv 2405.00675) and, from completions with tokens as `sample` leaves them,
`prompt_ids`, `completion_ids` and `ref_logps` (log pi of the policy that sampled, in nats, summed over tokens, at
temperature 1).

The columns `tools` and `chat_template_kwargs` of a prompt stay with it.

`unpaired` labels every completion, good where its score is above `threshold`, and no pairs are needed. Those within
`margin` of the threshold, and not at it, are left out.

Ties (within `margin`), completions of equal text and unscored ones are left out and counted; of `grouped` only whole
prompts, whose answers are all tied, as those that are all right or all wrong. With several rewards a
completion is unscored where one of them has abstained; `missing: ignore` sums those that spoke.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from trimtab.pipelines.data import counting, grouping, promises
from trimtab.pipelines.data.forms import SCORED, TOKENS, Data
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.work import Rows
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.scoring.combining import Combination, Missing
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text
from trimtab.rewards._rendering import TEMPLATED

if TYPE_CHECKING:
    from trimtab.pipelines.data.grouping import Groups
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step

READ = ("prompt", "completion", "prompt_index", "scores", *TEMPLATED)


@dataclass(kw_only=True)
class Pair(Stage):
    """`reward` is one reward of the scores or weights of several; `margin` is in the unit of their weighted sum.

    `score_scale` times that unit is logits, which `win_probs` are made from: 1 for a reward model's own scores.
    """

    completions: Annotated[Data, SCORED]
    reward: str | dict[str, float]
    select: Literal["best_worst", "all", "ranked", "grouped", "ends", "drawn", "unpaired"] = "best_worst"
    missing: Missing = "abstain"
    margin: float = 0.0
    score_scale: float = 1.0
    threshold: float | None = None

    neutral_when_empty: ClassVar[tuple[str, ...]] = ("threshold",)
    writes: ClassVar[tuple[str, ...]] = (
        "prompt",
        "chosen",
        "rejected",
        "chosen_score",
        "rejected_score",
        "completion",
        "label",
        "completions",
        "completion_scores",
        "win_probs",
        "prompt_ids",
        "completion_ids",
        "vocabulary",
        "ref_logps",
    )
    shows: ClassVar[Shows] = Shows(results=("rows", "mean_gap"))

    def check(self, step: Step) -> None:
        if not self.score_scale > 0:
            raise RecipeError(f"must be above 0, got {self.score_scale}", (*step.path, "score_scale"))
        if (self.select == "unpaired") != (self.threshold is not None):
            message = "`select: unpaired` needs one, and nothing else does: a score above it is of a good answer"
            raise RecipeError(message, (*step.path, "threshold"))
        Combination.of(self.reward, self.missing).check_ahead(step)
        if self.select != "unpaired" and promises.of(self.completions, step).answers == 1:
            message = "every prompt will have one answer, and a pair needs two: raise `num_generations`"
            raise RecipeError(message, (*step.path, "completions"))
        super().check(step)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        of_pairs, labelled = ("chosen", "rejected", "chosen_score", "rejected_score"), ("completion", "label")
        if self.select == "unpaired":
            return Promise(columns=("prompt", *labelled, *TEMPLATED))
        is_pairs = self.select in ("best_worst", "all")
        other = [name for name in self.writes if name not in ("prompt", *of_pairs, *labelled)]
        return Promise(columns=("prompt", *(of_pairs if is_pairs else other), *TEMPLATED))

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        rows = known.rows("completions")
        if self.select == "unpaired":
            return rows.shaped(1)
        answers = max(2, round(rows.count / max(1, rows.prompts)))
        count = rows.prompts * (answers * (answers - 1) // 2 if self.select == "all" else 1)
        return replace(rows, count=count).shaped(answers if self.select in ("ranked", "grouped") else 2)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        rows = counting.rows(self.completions, step, "completions")
        combination = Combination.of(self.reward, self.missing)
        combination.check(rows.features["scores"], (*step.path, "reward"))
        groups = grouping.by_column(rows, "prompt_index")
        counts: dict[str, int] = defaultdict(int)
        gaps = array("d")

        def preferences() -> Iterator[dict[str, Any]]:
            columns = READ if self.select in ("best_worst", "all", "unpaired") else (*READ, *TOKENS, "vocabulary")
            for group in groups.rows(rows, columns):
                for row in self._select(group, combination, counts, step.seed):
                    gaps.extend([row["chosen_score"] - row["rejected_score"]] if "chosen_score" in row else [])
                    yield row

        remaining = preferences()
        first = next(remaining, None)
        if first is None:
            reasons = _reasons(rows, groups, combination, counts)
            raise RecipeError(
                f"no pair is left of {len(rows)} completions of {len(groups)} prompts: {reasons}", step.path
            )
        written = write_rows(step, chain([first], remaining))
        metrics = {"prompts": len(groups), "rows": written, **counts}
        return metrics | ({"mean_gap": sum(gaps) / len(gaps)} if gaps else {})

    def _select(
        self, group: list[dict], combination: Combination, counts: dict[str, int], seed: int
    ) -> list[dict[str, Any]]:
        """The rows that one prompt's completions make; `counts` is told of what is left out."""
        from trimtab.pipelines.algorithms import preference

        rows, scores = _unique_and_scored(group, combination, counts)
        if self.threshold is not None:
            over = [score - self.threshold for score in scores]
            clear_of_it = [place for place, gap in enumerate(over) if not 0 < abs(gap) <= self.margin]
            counts["ties_dropped"] += len(over) - len(clear_of_it)
            return [_labelled(rows[place], over[place] > 0) for place in clear_of_it]
        if self.select == "ranked":
            order = preference.ranking(scores)
            ranks = [i for n, i in enumerate(order) if n == 0 or scores[order[n - 1]] - scores[i] > self.margin]
            counts["ties_dropped"] += len(order) - len(ranks)
            return [self._list(rows, scores, ranks)] if len(ranks) > 1 else []
        if self.select == "grouped":
            order = preference.ranking(scores)
            if len(order) > 1 and scores[order[0]] - scores[order[-1]] > self.margin:
                return [self._list(rows, scores, order)]
            counts["ties_dropped"] += len(order) if len(order) > 1 else 0
            return []
        if self.select == "drawn":
            pairs = preference.drawn_pair(scores, f"{seed}-{group[0]['prompt_index']}")
        else:
            pairs = (preference.all_pairs if self.select == "all" else preference.best_worst)(scores)
        clear = [(better, worse) for better, worse in pairs if scores[better] - scores[worse] > self.margin]
        if len(clear) < len(pairs):
            counts["ties_dropped"] += len(pairs) - len(clear)
        if self.select in ("ends", "drawn"):
            return [self._list(rows, scores, pair) for pair in clear]
        return [_pair(rows, scores, better, worse) for better, worse in clear]

    def _list(self, rows: list[dict], scores: list[float], ranks: Sequence[int]) -> dict[str, Any]:
        """One row of the answers `ranks`, best first; the probabilities of winning are against all of `rows`."""
        from trimtab.pipelines.algorithms import preference

        wins = preference.win_probabilities(scores, self.score_scale)
        row = {
            "prompt": rows[0]["prompt"],
            "completions": [rows[i]["completion"] for i in ranks],
            "completion_scores": [scores[i] for i in ranks],
            "win_probs": [wins[i] for i in ranks],
        }
        if rows[0].keys() >= set(TOKENS):
            row |= {
                "prompt_ids": rows[0]["prompt_ids"],
                "completion_ids": [rows[i]["completion_ids"] for i in ranks],
                "ref_logps": [sum(rows[i]["logprobs"]) for i in ranks],
            }
        return row | _kept(rows[0], (*TEMPLATED, "vocabulary"))


def _unique_and_scored(
    group: list[dict], combination: Combination, counts: dict[str, int]
) -> tuple[list[dict], list[float]]:
    """The first completion of each text that has a score, and the scores."""
    unique: dict[str, tuple[dict, float]] = {}
    for row in group:
        score = combination(row["scores"])
        if score is None:
            counts["unscored_dropped"] += 1
            continue
        answer = text(row["completion"])
        counts["duplicates_dropped"] += answer in unique
        unique.setdefault(answer, (row, score))
    return [row for row, _ in unique.values()], [score for _, score in unique.values()]


def _reasons(rows: Any, groups: Groups, combination: Combination, counts: Mapping[str, int]) -> str:
    """Why completions make no pair, each reason with its cure."""
    alone = int((groups.sizes == 1).sum())
    equal, tied = counts.get("duplicates_dropped", 0), counts.get("ties_dropped", 0)
    reasons = [
        combination.abstentions(rows["scores"]),
        f"{alone} prompts have one completion, and a pair needs two: raise `num_generations`" if alone else "",
        f"{equal} completions say what another one says: sample more, or at a higher temperature" if equal else "",
        f"{tied} pairs are within `margin`: lower it, or use a reward that tells them apart" if tied else "",
    ]
    return "; ".join(filter(None, reasons))


def _pair(rows: list[dict], scores: list[float], better: int, worse: int) -> dict[str, Any]:
    return {
        "prompt": rows[0]["prompt"],
        "chosen": rows[better]["completion"],
        "rejected": rows[worse]["completion"],
        "chosen_score": scores[better],
        "rejected_score": scores[worse],
        **_kept(rows[0], TEMPLATED),
    }


def _labelled(row: dict[str, Any], is_good: bool) -> dict[str, Any]:
    return {"prompt": row["prompt"], "completion": row["completion"], "label": is_good, **_kept(row, TEMPLATED)}


def _kept(row: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    return {column: row[column] for column in columns if column in row}
