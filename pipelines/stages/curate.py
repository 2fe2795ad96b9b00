"""Kind `curate`: of every prompt's scored completions one (or `keep`) is chosen, to be trained on by `sft`.

    curate: {completions: $score, reward: helpful}                          # with probability softmax(r)
    curate: {completions: $score, reward: {helpful: 1.0, brief: 0.2}, temperature: 0}      # the best; .inf: any
    curate: {completions: $score, choices: chosen.jsonl, missing_choices: drop}            # by people or a judge
    curate: {completions: $score, reward: helpful, deduplicate: 0.9, decontaminate: test.jsonl}

Plackett-Luce selection, x_k with probability e^{r(x_k) / temperature} / sum_j e^{r(x_j) / temperature} (Ferbach et al.
2024, arXiv 2407.09499), `keep` of them without replacement. A completion that one of several rewards has abstained
from is not chosen by them, unless `missing: ignore` sums those that spoke.

`choices` has one row per prompt: `prompt_index` and either `choice`, the sample_index of the chosen completion, or
`ranking`, a list of them with the best first.

    {"prompt_index": 0, "choice": 2}
    {"prompt_index": 1, "ranking": [3, 0, 1]}

The dataset has `prompt` and `completion`, and where they come from: `prompt_index`, `sample_index`, `round`, `policy`,
`rank` (1 is the best of the scored, or of the ranking), `score`, `probability` (of being drawn at its turn; null for
choices made elsewhere) and `chosen_by`.

Metrics: `entropy` of the selection (nats; `entropy_share` of log K), `reward/kept` and `reward/all`, and the increment
of E[e^{r / temperature}] in units of the prompt's best: `realised` (with its `stderr`), `expected` of such draws, and
the paper's `guaranteed`. The last is never above the second; the first differs from it by chance.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from trimtab.pipelines.algorithms import clean_text, curation, statistics
from trimtab.pipelines.data import choices, loading
from trimtab.pipelines.data.forms import CHOICES, PROMPTS, SAMPLED, Data, Form
from trimtab.pipelines.forecasting.work import Rows
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.scoring.combining import Combination, Missing
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text
from trimtab.rewards._rendering import TEMPLATED

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step


CHOOSABLE = SAMPLED.columns[0]
COUNTED = ("exact_duplicates", "near_duplicates", "contaminated_dropped", "unscored_dropped", "missing_choices")
Group = list[dict[str, Any]]


@dataclass(kw_only=True)
class Curate(Stage):
    """`reward` is one reward of the scores or weights of several; it may be left out where `choices` has every prompt.

    Prompts without a choice: `missing_choices: stop` is an error, `reward` lets the reward choose, `drop` leaves them
    out. Equal rows are counted; with `deduplicate` they are dropped, and so are those of which both prompt and
    completion are that similar (Jaccard, 5-character shingles; 1 is equal) to those of a row before. `decontaminate`
    drops prompts (all but system messages) that equal one of its prompts or share 13 words in a row with it. `round`
    and `policy` are noted in the rows. `after` is a step that has to let this one go on, such as a monitor.
    """

    completions: Annotated[Data, SAMPLED]
    reward: str | dict[str, float] | None = None
    missing: Missing = "abstain"
    temperature: float = 1.0
    keep: int = 1
    choices: Annotated[Data | None, CHOICES] = None
    missing_choices: Literal["stop", "reward", "drop"] = "stop"
    deduplicate: float | None = None
    decontaminate: Annotated[Data | None, PROMPTS] = None
    round: int = 0
    policy: str | None = None
    after: str | None = None

    writes: ClassVar[tuple[str, ...]] = (
        "prompt",
        "completion",
        "prompt_index",
        "sample_index",
        "round",
        "policy",
        "rank",
        "score",
        "probability",
        "chosen_by",
    )
    shows: ClassVar[Shows] = Shows(
        {
            "Reward": ("reward/*",),
            "Selection entropy (share of log K)": ("entropy_share",),
            "Increment of E[exp(reward)]": ("increment/realised", "increment/expected", "increment/guaranteed"),
        },
        ("kept", "reward/kept", "entropy_share"),
        by_round=True,
    )

    def reads(self) -> dict[str, Form]:
        scored = {"completions": SAMPLED.where("scores")} if self.reward else {}
        return super().reads() | scored

    def check(self, step: Step) -> None:
        limits = {
            "temperature": (self.temperature >= 0, "at least 0"),
            "keep": (self.keep >= 1, "at least 1"),
            "deduplicate": (self.deduplicate is None or 0 < self.deduplicate <= 1, "above 0 and at most 1"),
        }
        for key, (right, words) in limits.items():
            if not right:
                raise RecipeError(f"must be {words}, got {getattr(self, key)}", (*step.path, key))
        if not self.reward and (self.choices is None or self.missing_choices == "reward"):
            raise RecipeError("name the reward that chooses, or give `choices`", (*step.path, "reward"))
        if self.reward:
            Combination.of(self.reward, self.missing).check_ahead(step)
        super().check(step)

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        rows = known.rows("completions")
        return replace(rows, count=rows.prompts * self.keep)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        groups = self._groups(step)
        rankings = self._choices(groups, step)
        held_out = self._held_out(step)
        counts = Counter(dict.fromkeys(COUNTED, 0))
        chosen = _Chosen(self.round, self.policy)
        for index, group in groups.items():
            counts["unscored_dropped"] += sum(row["score"] is None for row in group) if self.reward else 0
            if held_out is not None and _asked(group[0]["prompt"]) in held_out:
                counts["contaminated_dropped"] += 1
            elif index in rankings:
                by_index = {row["sample_index"]: row for row in group}
                chosen.by_choice(group, [by_index[i] for i in rankings[index][: self.keep]])
            else:
                counts["missing_choices"] += self.choices is not None
                if self.choices is None or self.missing_choices == "reward":
                    chosen.by_reward(group, self.keep, self.temperature, f"{step.seed}-{self.round}-{index}")
        kept = self._without_duplicates(chosen.rows, counts)
        if not kept:
            raise RecipeError(f"nothing is left of {len(groups)} prompts: {self._reasons(step, counts)}", step.path)
        write_rows(step, kept)
        tracking.table("curated", [_shown(row) for row in kept[:20]])
        completions = sum(map(len, groups.values()))
        return {"prompts": len(groups), "completions": completions, "kept": len(kept), **counts, **chosen.means()}

    def _reasons(self, step: Step, counts: Counter[str]) -> str:
        """Why no completion was chosen, each reason with its cure."""
        reasons = []
        if self.reward:
            rows = loading.load(self.completions, (*step.path, "completions"))
            reasons.append(Combination.of(self.reward, self.missing).abstentions(rows["scores"]))
        if counts["contaminated_dropped"]:
            reasons.append(f"{counts['contaminated_dropped']} prompts are those of `decontaminate`: sample other ones")
        if counts["missing_choices"]:
            reasons.append(
                f"`choices` has none for {counts['missing_choices']}: add them, or `missing_choices: reward`"
            )
        return "; ".join(filter(None, reasons))

    def _groups(self, step: Step) -> dict[int, Group]:
        """Each prompt's completions, with their `score`, None where a reward has abstained or none was asked for."""
        rows = loading.load(self.completions, (*step.path, "completions"))
        combination = Combination.of(self.reward, self.missing) if self.reward else None
        if combination:
            combination.check(rows.features["scores"], (*step.path, "reward"))
        groups: dict[int, Group] = defaultdict(list)
        templated = [column for column in TEMPLATED if column in rows.column_names]
        for row in rows.select_columns([*CHOOSABLE, *templated, *(["scores"] if combination else [])]):
            scores = row.pop("scores", {})
            row["score"] = combination(scores) if combination else None
            groups[row["prompt_index"]].append(row)
        for index, group in groups.items():
            group.sort(key=lambda row: row["sample_index"])  # so that a choice does not depend on the rows' order
            for row, after in pairwise(group):
                if row["sample_index"] == after["sample_index"]:
                    twice = f"prompt_index {index} has sample_index {row['sample_index']} twice"
                    place = (*step.path, "completions")
                    raise RecipeError(f"{twice}: are these several datasets of `sample`?", place)
        return dict(sorted(groups.items()))

    def _choices(self, groups: dict[int, Group], step: Step) -> dict[int, list[int]]:
        """prompt_index -> sample indices, best first. Raises RecipeError naming the wrong row, or what is missing."""
        if self.choices is None:
            return {}
        place = (*step.path, "choices")
        samples = {index: [row["sample_index"] for row in group] for index, group in groups.items()}
        read = choices.read(self.choices, samples, self.keep, place)
        missing = [index for index in groups if index not in read]
        if missing and self.missing_choices == "stop":
            listed = f"{', '.join(map(str, missing[:5]))}{', ...' if missing[5:] else ''}"
            raise RecipeError(
                f"{choices.source(self.choices)}: no choice for {len(missing)} of {len(groups)} prompts, prompt_index "
                f"{listed}: add them, or set `missing_choices` to reward or drop",
                place,
            )
        return read

    def _held_out(self, step: Step) -> clean_text.HeldOut | None:
        if not self.decontaminate:
            return None
        rows = loading.load(self.decontaminate, (*step.path, "decontaminate"))
        return clean_text.HeldOut(_asked(prompt) for prompt in rows["prompt"])

    def _without_duplicates(self, rows: Group, counts: Counter[str]) -> Group:
        """The rows, without the duplicates among them where `deduplicate` says so; counts them in either case."""
        examples = [(text(row["prompt"]), text(row["completion"])) for row in rows]
        kinds = clean_text.duplicates(examples, self.deduplicate)
        counts.update(f"{kind}_duplicates" for kind in kinds if kind)
        if self.deduplicate is None:
            return rows
        return [row for row, kind in zip(rows, kinds, strict=True) if kind is None]


class _Chosen:
    """The rows that are chosen, and what there is to say of each prompt's choice: `means` over prompts are metrics."""

    def __init__(self, number: int, policy: str | None):
        self.origin = {"round": number, "policy": policy}
        self.rows: Group = []
        self.series: dict[str, list[float]] = defaultdict(list)

    def by_choice(self, group: Group, best: Group) -> None:
        """Adds what was chosen elsewhere, best first."""
        self._note_rewards(group, best)
        for rank, row in enumerate(best, start=1):
            self._add(row, rank=rank, probability=None, chosen_by="choice")

    def by_reward(self, group: Group, keep: int, temperature: float, seed: str) -> None:
        """Adds the completions that the reward chooses; a prompt with fewer scored ones keeps those."""
        group = [row for row in group if row["score"] is not None]
        if not group:
            return
        scores = [row["score"] for row in group]
        drawn = curation.choose(scores, min(keep, len(group)), temperature, seed)
        chances = curation.turns(scores, drawn, temperature)
        self._note_rewards(group, [group[i] for i in drawn])
        for i, chance in zip(drawn, chances, strict=True):
            rank = 1 + sum(score > scores[i] for score in scores)
            self._add(group[i], rank=rank, probability=chance, chosen_by="reward")
        entropy = curation.entropy(curation.probabilities(scores, temperature))
        self.series["entropy"].append(entropy)
        if len(group) > 1:
            self.series["entropy_share"].append(entropy / math.log(len(group)))
        if keep == 1 and 0 < temperature < math.inf:  # what the theorem is about
            weights, expected, guaranteed = curation.increments(scores, temperature)
            self.series["increment/realised"].append(float(weights[drawn[0]] - weights.mean()))
            self.series["increment/expected"].append(expected)
            self.series["increment/guaranteed"].append(guaranteed)

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

    def _add(self, row: dict[str, Any], **choice: Any) -> None:
        self.rows.append({**row, **self.origin, **choice})


def _asked(prompt: str | list[dict[str, Any]]) -> str:
    """The prompt without its system messages, which different prompts have in common."""
    return prompt if isinstance(prompt, str) else text([turn for turn in prompt if turn.get("role") != "system"])


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    said = {"prompt": text(row["prompt"]), "completion": text(row["completion"])}
    return {**said, "score": row["score"], "rank": row["rank"]}
