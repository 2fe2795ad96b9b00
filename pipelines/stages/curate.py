"""Kind `curate`: of every prompt's scored completions one (or `keep`) is chosen, to be trained on by `sft`.

    curate: {completions: $score, reward: helpful}                          # with probability softmax(r)
    curate: {completions: $score, reward: {helpful: 1.0, brief: 0.2}, temperature: 0}      # the best; .inf: any
    curate: {completions: $score, choices: chosen.jsonl, missing_choices: drop}            # by people or a judge
    curate: {completions: $score, reward: helpful, deduplicate: 0.9, decontaminate: test.jsonl}

Plackett-Luce selection, x_k with probability e^{r(x_k) / temperature} / sum_j e^{r(x_j) / temperature} (Ferbach et al.
2024, arXiv 2407.09499), `keep` of them without replacement.

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
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from trimtab.pipelines.data import loading
from trimtab.pipelines.data.forms import CHOICES, PROMPTS, SAMPLED, Data, Form
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text

if TYPE_CHECKING:
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
    temperature: float = 1.0
    keep: int = 1
    choices: Annotated[Data | None, CHOICES] = None
    missing_choices: Literal["stop", "reward", "drop"] = "stop"
    deduplicate: float | None = None
    decontaminate: Annotated[Data | None, PROMPTS] = None
    round: int = 0
    policy: str | None = None
    after: str | None = None

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
        super().check(step)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.algorithms import curation
        from trimtab.pipelines.data.writing import write_rows

        groups = self._groups(step)
        choices = self._choices(groups, step)
        held_out = None
        if self.decontaminate:
            rows = loading.load(self.decontaminate, (*step.path, "decontaminate"))
            held_out = curation.HeldOut(_asked(prompt) for prompt in rows["prompt"])
        counts, series = Counter(dict.fromkeys(COUNTED, 0)), defaultdict(list)
        chosen: Group = []
        for index, group in groups.items():
            counts["unscored_dropped"] += sum(row["score"] is None for row in group) if self.reward else 0
            if held_out is not None and _asked(group[0]["prompt"]) in held_out:
                counts["contaminated_dropped"] += 1
            elif index in choices:
                by_index = {row["sample_index"]: row for row in group}
                self._keep(chosen, group, [by_index[i] for i in choices[index][: self.keep]], series)
            else:
                counts["missing_choices"] += self.choices is not None
                if self.choices is None or self.missing_choices == "reward":
                    self._draw(chosen, group, series, f"{step.seed}-{self.round}-{index}")
        found = curation.duplicates([(text(r["prompt"]), text(r["completion"])) for r in chosen], self.deduplicate)
        counts.update(f"{word}_duplicates" for word in found if word)
        kept = [row for row, word in zip(chosen, found, strict=True) if not word or self.deduplicate is None]
        if not kept:
            raise RecipeError(f"nothing is left of {len(groups)} prompts: {dict(counts)}", step.path)
        write_rows(step, kept)
        tracking.table("curated", [{"prompt": text(r["prompt"]), "completion": text(r["completion"]),
                                    "score": r["score"], "rank": r["rank"]} for r in kept[:20]])  # fmt: skip
        completions = sum(map(len, groups.values()))
        return {"prompts": len(groups), "completions": completions, "kept": len(kept), **counts, **_means(series)}

    def _groups(self, step: Step) -> dict[int, Group]:
        """Each prompt's completions, with their `score`, None where a reward has abstained or none was asked for."""
        from trimtab.pipelines.algorithms import statistics

        rows = loading.load(self.completions, (*step.path, "completions"))
        weights = {self.reward: 1.0} if isinstance(self.reward, str) else self.reward or {}
        known = sorted(rows.features["scores"]) if weights else []
        for name in weights:
            if name not in known:
                raise RecipeError(f"no reward {name!r} in the scores ({', '.join(known)})", (*step.path, "reward"))
        groups: dict[int, Group] = defaultdict(list)
        for row in rows.select_columns([*CHOOSABLE, *(["scores"] if weights else [])]):
            scores = row.pop("scores", {})
            row["score"] = statistics.weighted(scores, weights) if weights else None
            groups[row["prompt_index"]].append(row)
        for index, group in groups.items():
            group.sort(key=lambda row: row["sample_index"])  # so that a choice does not depend on the rows' order
            for row, after in pairwise(group):
                if row["sample_index"] == after["sample_index"]:
                    raise RecipeError(f"prompt_index {index} has sample_index {row['sample_index']} twice: are these "
                                      "several datasets of `sample`?", (*step.path, "completions"))  # fmt: skip
        return dict(sorted(groups.items()))

    def _choices(self, groups: dict[int, Group], step) -> dict[int, list[int]]:
        """prompt_index -> sample indices, best first. Raises RecipeError naming the wrong row, or what is missing."""
        if self.choices is None:
            return {}
        place, found = (*step.path, "choices"), {}
        source = ", ".join(name for entry in self.choices.datasets for name in loading.files(entry))
        for at, row in enumerate(loading.load(self.choices, place)):
            ranking = [row["choice"]] if row.get("choice") is not None else row.get("ranking")
            if problem := _problem(row, ranking, groups, found, self.keep):
                raise RecipeError(f"{source}, row {at}: {problem}", place)
            found[row["prompt_index"]] = ranking
        missing = [index for index in groups if index not in found]
        if missing and self.missing_choices == "stop":
            raise RecipeError(f"{source}: no choice for {len(missing)} of {len(groups)} prompts, prompt_index "
                              f"{', '.join(map(str, missing[:5]))}{', ...' if missing[5:] else ''}: add them, or set "
                              "`missing_choices` to reward or drop", place)  # fmt: skip
        return found

    def _draw(self, chosen: Group, group: Group, series: dict[str, list[float]], seed: str) -> None:
        """Adds the completions that the reward chooses; a prompt with fewer scored ones keeps those."""
        from trimtab.pipelines.algorithms import curation

        group = [row for row in group if row["score"] is not None]
        if not group:
            return
        scores = [row["score"] for row in group]
        drawn = curation.choose(scores, min(self.keep, len(group)), self.temperature, seed)
        chances = curation.turns(scores, drawn, self.temperature)
        self._keep(chosen, group, [group[i] for i in drawn], series, chances)
        entropy = curation.entropy(curation.probabilities(scores, self.temperature))
        series["entropy"].append(entropy)
        if len(group) > 1:
            series["entropy_share"].append(entropy / math.log(len(group)))
        if self.keep == 1 and 0 < self.temperature < math.inf:  # what the theorem is about
            weights, expected, guaranteed = curation.increments(scores, self.temperature)
            series["increment/realised"].append(float(weights[drawn[0]] - weights.mean()))
            series["increment/expected"].append(expected)
            series["increment/guaranteed"].append(guaranteed)

    def _keep(
        self,
        chosen: Group,
        group: Group,
        best: Group,
        series: dict[str, list[float]],
        chances: list[float] | None = None,
    ) -> None:
        scores = [row["score"] for row in group if row["score"] is not None]
        of_kept = [row["score"] for row in best if row["score"] is not None]
        if of_kept:
            series["reward/kept"].append(sum(of_kept) / len(of_kept))
            series["reward/all"].append(sum(scores) / len(scores))
        for nth, row in enumerate(best):
            rank = nth + 1 if chances is None else 1 + sum(score > row["score"] for score in scores)
            chosen.append({
                **row,
                "round": self.round,
                "policy": self.policy,
                "rank": rank,
                "probability": None if chances is None else chances[nth],
                "chosen_by": "choice" if chances is None else "reward",
            })  # fmt: skip


def _problem(row: dict[str, Any], ranking: Any, groups: dict[int, Group], found: dict, keep: int) -> str | None:
    """What is wrong with a row of `choices`."""
    index, given = row["prompt_index"], [key for key in ("choice", "ranking") if row.get(key) is not None]
    if index not in groups:
        return f"no prompt_index {index!r} among the completions"
    if index in found:
        return f"a second choice for prompt_index {index}"
    if len(given) != 1:
        return f"expected either `choice` or `ranking`, got {' and '.join(given) or 'neither'}"
    if not isinstance(ranking, list):
        return f"`ranking` is {ranking!r}, expected a list of sample indices"
    known = [completion["sample_index"] for completion in groups[index]]
    for sample in ranking:
        if type(sample) is not int or sample not in known:
            return f"no sample_index {sample!r} for prompt_index {index} (there are {known})"
    if len(set(ranking)) < len(ranking):
        return f"`ranking` {ranking} has a sample_index twice"
    if len(ranking) < keep:
        return f"names {len(ranking)} of the {keep} to keep: give a longer `ranking`"
    return None


def _asked(prompt: str | list[dict[str, Any]]) -> str:
    """The prompt without its system messages, which different prompts have in common."""
    return prompt if isinstance(prompt, str) else text([turn for turn in prompt if turn.get("role") != "system"])


def _means(series: dict[str, list[float]]) -> dict[str, float]:
    """Means over prompts."""
    from trimtab.pipelines.algorithms import statistics

    means = {name: statistics.mean_stderr(values)[0] for name, values in series.items()}
    realised = series.get("increment/realised", [])
    return means | ({"increment/stderr": statistics.mean_stderr(realised)[1]} if len(realised) > 1 else {})
