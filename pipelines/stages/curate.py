"""Kind `curate`: of every prompt's scored completions one (or `keep`) is chosen, to be trained on by `sft`.

    curate: {completions: $score, reward: helpful}                          # with probability softmax(r)
    curate: {completions: $score, reward: {helpful: 1.0, brief: 0.2}, temperature: 0}      # the best; .inf: any
    curate: {completions: $score, choices: chosen.jsonl, missing_choices: drop}            # by people or a judge
    curate: {completions: $score, reward: helpful, deduplicate: 0.9, decontaminate: test.jsonl}
    curate: {completions: $score, reward: helpful, temperature: 0, require: {right: 1}}    # the best of the right ones

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

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from trimtab.pipelines.algorithms import clean_text
from trimtab.pipelines.data import choices, counting, grouping, loading, promises
from trimtab.pipelines.data.forms import CHOICES, PROMPTS, SAMPLED, Data, Form
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.work import Rows
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.scoring.choosing import Chosen, Group
from trimtab.pipelines.scoring.combining import Combination, Missing, missed
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text
from trimtab.rewards._rendering import TEMPLATED

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature


CHOOSABLE = SAMPLED.columns[0]
COUNTED = ("exact_duplicates", "near_duplicates", "contaminated_dropped", "unscored_dropped", "missing_choices")
SHOWN = 20  # rows of the table that is logged


@dataclass(kw_only=True)
class Curate(Stage):
    """`reward` is one reward of the scores or weights of several; it may be left out where `choices` has every prompt.

    Prompts without a choice: `missing_choices: stop` is an error, `reward` lets the reward choose, `drop` leaves them
    out. Equal rows are counted; with `deduplicate` they are dropped, and so are those of which both prompt and
    completion are that similar (Jaccard, 5-character shingles; 1 is equal) to those of a row before. `decontaminate`
    drops prompts (all but system messages) that equal one of its prompts or share 13 words in a row with it. `round`
    and `policy` are noted in the rows. A completion with less than `require` says of one of its rewards has no score.
    `after` is a step that has to let this one go on, such as a monitor.
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
    require: dict[str, float] = field(default_factory=dict)
    after: str | None = None

    neutral_when_empty: ClassVar[tuple[str, ...]] = ("require",)
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

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        emptying: dict[str, Any] = {
            "require": {},
            "decontaminate": None,
        }  # of rows that are all alike, and right in nothing
        without = {key: empty for key, empty in emptying.items() if block.get(key)}
        return {**super().small(block, miniature), **without}

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
        if self.require and not self.reward:
            raise RecipeError(
                "takes scores away, and `choices` alone ask for none: name a `reward`", (*step.path, "require")
            )
        if self.reward:
            Combination.of(self.reward, self.missing).check_ahead(step)
        for name in self.require:
            Combination.of(name, self.missing).check_ahead(step, "require")
        super().check(step)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return replace(promises.written(self), is_chat=promises.of(self.completions, step).is_chat)

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        rows = known.rows("completions")
        return replace(rows, count=rows.prompts * self.keep)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        rows = counting.rows(self.completions, step, "completions")
        prompts = self._prompts(rows, step)
        rankings = self._choices(rows, prompts, step)
        held_out = self._held_out(step)
        counts = Counter(dict.fromkeys(COUNTED, 0))
        chosen = Chosen(self.round, self.policy)
        shown: Group = []

        def kept() -> Iterator[dict[str, Any]]:
            seen = clean_text.Seen(self.deduplicate)
            for group in self._groups(rows, prompts):
                for row in self._chosen(group, rankings, held_out, chosen, counts, step.seed):
                    kind = seen.duplicate((text(row["prompt"]), text(row["completion"])))
                    if kind is not None:
                        counts[f"{kind}_duplicates"] += 1
                    if kind is None or self.deduplicate is None:
                        shown.extend([row] if len(shown) < SHOWN else [])
                        yield row

        remaining = kept()
        first = next(remaining, None)
        if first is None:
            raise RecipeError(f"nothing is left of {len(prompts)} prompts: {self._reasons(step, counts)}", step.path)
        written = write_rows(step, chain([first], remaining))
        tracking.table("curated", [_shown(row) for row in shown])
        return {"prompts": len(prompts), "completions": len(rows), "kept": written, **counts, **chosen.means()}

    def _chosen(
        self,
        group: Group,
        rankings: Mapping[int, list[int]],
        held_out: clean_text.HeldOut | None,
        chosen: Chosen,
        counts: Counter[str],
        seed: int,
    ) -> Group:
        """The rows that are chosen of a prompt's completions; `counts` is told of what is left out."""
        index = group[0]["prompt_index"]
        counts["unscored_dropped"] += sum(row["score"] is None for row in group) if self.reward else 0
        if held_out is not None and clean_text.asked(group[0]["prompt"]) in held_out:
            counts["contaminated_dropped"] += 1
            return []
        if index in rankings:
            by_index = {row["sample_index"]: row for row in group}
            return chosen.by_choice(group, [by_index[i] for i in rankings[index][: self.keep]])
        counts["missing_choices"] += self.choices is not None
        if self.choices is None or self.missing_choices == "reward":
            return chosen.by_reward(group, self.keep, self.temperature, f"{seed}-{self.round}-{index}")
        return []

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

    def _prompts(self, rows: Dataset, step: Step) -> grouping.Groups:
        """The rows by prompt_index and sample_index: a choice does not depend on the rows' order."""
        places = rows.select_columns(["prompt_index", "sample_index"]).with_format("numpy")[:]
        prompts = grouping.sorted_by(places["prompt_index"], places["sample_index"])
        sorted_places = [places[name][prompts.order] for name in ("prompt_index", "sample_index")]
        again = (sorted_places[0][1:] == sorted_places[0][:-1]) & (sorted_places[1][1:] == sorted_places[1][:-1])
        if again.any():
            prompt, sample = (column[again.argmax()] for column in sorted_places)
            twice = f"prompt_index {prompt} has sample_index {sample} twice: are these several datasets of `sample`?"
            raise RecipeError(twice, (*step.path, "completions"))
        if self.reward:
            Combination.of(self.reward, self.missing).check(rows.features["scores"], (*step.path, "reward"))
            for name in self.require:
                Combination.of(name, self.missing).check(rows.features["scores"], (*step.path, "require"))
        return prompts

    def _groups(self, rows: Dataset, prompts: grouping.Groups) -> Iterator[Group]:
        """Each prompt's completions, with their `score`, None where a reward has abstained or none was asked for."""
        combination = Combination.of(self.reward, self.missing) if self.reward else None
        columns = (*CHOOSABLE, *TEMPLATED, *(["scores"] if combination else []))
        for group in prompts.rows(rows, columns):
            for row in group:
                scores = row.pop("scores", {})
                is_enough = not missed(scores, self.require)
                row["score"] = combination(scores) if combination and is_enough else None
            yield group

    def _choices(self, rows: Dataset, prompts: grouping.Groups, step: Step) -> dict[int, list[int]]:
        """prompt_index -> sample indices, best first. Raises RecipeError naming the wrong row, or what is missing."""
        if self.choices is None:
            return {}
        place = (*step.path, "choices")
        samples: dict[int, list[int]] = defaultdict(list)
        for row in grouping.records(rows.select(prompts.order), ("prompt_index", "sample_index")):
            samples[row["prompt_index"]].append(row["sample_index"])
        read = choices.read(self.choices, samples, self.keep, place)
        missing = [index for index in samples if index not in read]
        if missing and self.missing_choices == "stop":
            listed = f"{', '.join(map(str, missing[:5]))}{', ...' if missing[5:] else ''}"
            raise RecipeError(
                f"{choices.source(self.choices)}: no choice for {len(missing)} of {len(samples)} prompts, "
                f"prompt_index {listed}: add them, or set `missing_choices` to reward or drop",
                place,
            )
        return read

    def _held_out(self, step: Step) -> clean_text.HeldOut | None:
        if not self.decontaminate:
            return None
        rows = counting.rows(self.decontaminate, step, "decontaminate")
        return clean_text.HeldOut(clean_text.asked(prompt) for prompt in rows["prompt"])


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    said = {"prompt": text(row["prompt"]), "completion": text(row["completion"])}
    return {**said, "score": row["score"], "rank": row["rank"]}
