"""Kind `compare`: scored completions of several policies on the same prompts, as a table and `evaluation.json`.

    compare: {scored: {sft: $sft-scores, dpo: $dpo-scores}, baseline: sft, reference: {model_name_or_path: $sft}}

Standard errors are over prompts: the completions of one prompt are averaged first, since they are not independent.
Differences are paired by prompt. Win rates are also told at equal length, in characters: see algorithms/win_rates.py.
KL is the mean of log pi(y|x) - log pi_ref(y|x) over the policy's own completions, in nats per completion: the Monte
Carlo estimate of KL(pi || pi_ref) where sampling was at temperature 1. A policy whose vocabulary is not the
reference's has none, since its token ids mean something else there; a note says so. Completions with `spent`, the
tokens that were drawn for them in all, have its mean beside that of their length.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl

from trimtab.pipelines.algorithms import statistics, win_rates
from trimtab.pipelines.algorithms.grouped_values import GroupedValues
from trimtab.pipelines.data import counting, grouping, loading, promises
from trimtab.pipelines.data.forms import SCORED, Data
from trimtab.pipelines.forecasting.passes import told
from trimtab.pipelines.forecasting.work import Held, Work
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.reporting import by_prompt, side_by_side
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import _vocabulary, text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step


SHOWN = 20  # prompts whose completions are kept side by side
Values = dict[str, GroupedValues]  # of the completions that a reward has scored, by its name and their prompt_index


@dataclass(frozen=True)
class Given:
    """The scores of a policy's completions, and how many characters these have."""

    scores: Values
    characters: Values


@dataclass(kw_only=True)
class Compare(Stage):
    """Artifact: `evaluation.json`, `summary.txt`, `by_prompt.parquet`."""

    scored: dict[str, Annotated[Data, SCORED]]
    baseline: str
    reference: trl.ModelConfig | None = None

    shows: ClassVar[Shows] = Shows(section="evaluation", compares=("*/mean",))

    def check(self, step: Step) -> None:
        if self.baseline not in self.scored:
            hint = suggest(self.baseline, self.scored)
            raise RecipeError(f"{self.baseline!r} is not one of those compared{hint}", (*step.path, "baseline"))
        super().check(step)
        self._check_alike(step)

    def _check_alike(self, step: Step) -> None:
        """Raises RecipeError where it is certain that completions cannot be put side by side."""
        baseline = promises.of(self.scored[self.baseline], step)
        for name, block in self.scored.items():
            promise, place = promises.of(block, step), (*step.path, "scored", name)
            if baseline.answers and promise.answers and baseline.answers != promise.answers:
                counts = f"{promise.answers} answers to each prompt, and {self.baseline} has {baseline.answers}"
                raise RecipeError(f"will have {counts}: give both the same `num_generations`", place)
            if baseline.rewards and promise.rewards and set(baseline.rewards) != set(promise.rewards):
                theirs, its = ", ".join(promise.rewards), ", ".join(baseline.rewards)
                message = f"will have scores by {theirs}, and {self.baseline} by {its}: score both by the same rewards"
                raise RecipeError(message, place)
            if baseline.asked is None or promise.asked in (None, baseline.asked):
                continue
            if not _is_asked_alike(baseline.asked, promise.asked, step):
                message = f"will answer other prompts than {self.baseline}: sample both from the same `prompts`"
                raise RecipeError(message, place)

    def work(self, known: Known) -> Work:
        parts = [known.rows("scored", block) for block in self.scored.values()]
        handled = sum(rows.count for rows in parts)
        if self.reference is None:
            return Work(handled=handled)
        model = known.model(self.reference)
        passes = tuple(told(model, rows, rows.count) for rows in parts)
        return Work("models", (Held(model),), passes, handled=handled)

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        rows = {name: counting.rows(block, step, "scored", name) for name, block in self.scored.items()}
        for name, table in rows.items():
            asked = zip_longest(_prompts(rows[self.baseline]), _prompts(table))
            if name != self.baseline and any(one != other for one, other in asked):
                raise RecipeError("other prompts than the baseline's", (*step.path, "scored", name))
        ratios = self._ratios(step, rows)
        notes = self._notes(rows, ratios)
        given = {name: _given(table) for name, table in rows.items()}
        policies = {name: self._policy(name, rows[name], given, ratios.get(name)) for name in rows}
        names = _names(rows[self.baseline])
        result = {
            "prompts": len(names),
            "completions_per_prompt": round(len(rows[self.baseline]) / len(names)),
            "baseline": self.baseline,
            "reference": self.reference.model_name_or_path if self.reference else None,
            "notes": notes,
            "policies": policies,
            "samples": _samples(rows),
        }
        if PartialState().is_main_process:
            (step.output / "evaluation.json").write_text(json.dumps(result, indent=1, ensure_ascii=False))
            (step.output / "summary.txt").write_text(side_by_side.summary(result))
            by_prompt.write(step.output, _means(given, names))
        metrics = {}
        for name, policy in policies.items():
            for reward, numbers in policy["rewards"].items():
                metrics[f"{name}/{reward}/mean"] = numbers["mean"]
                metrics[f"{name}/{reward}/stderr"] = numbers["stderr"]
        return metrics

    def _ratios(self, step: Step, rows: dict[str, Any]) -> dict[str, list[float]]:
        """Summed log-ratios of each policy's own completions to the reference; each rank does its share."""
        if self.reference is None:
            return {}
        from trimtab.pipelines.sampling import transformers_engine

        tokenizer = transformers_engine.load_tokenizer(self.reference)
        known = {name: table for name, table in rows.items() if not _vocabulary.foreign(tokenizer, _of(table))}
        policy = transformers_engine.load(self.reference) if known else None
        return {
            name: transformers_engine.log_ratios(policy, table, f"{step.name}, KL of {name}")
            for name, table in known.items()
        }

    def _notes(self, rows: dict[str, Any], ratios: dict[str, list[float]]) -> list[str]:
        """What a reader has to know of numbers that are not there, or mean something else than it seems."""
        notes = []
        if self.reference is not None:
            why = f"its vocabulary is not that of the reference, {self.reference.model_name_or_path}"
            notes += [f"{name}: no KL, {why}" for name in rows if name not in ratios]
        if len(set(chain.from_iterable(_of(table) or () for table in rows.values()))) > 1:
            notes.append("lengths in tokens are of different vocabularies: they do not compare")
        return notes

    def _policy(self, name: str, rows: Any, given: dict[str, Given], ratios: list[float] | None) -> dict[str, Any]:
        """What evaluation.json says of one policy."""
        import pyarrow.compute as pc

        groups, lengths = _numbers(rows, "prompt_index"), pc.list_value_length(grouping.column(rows, "completion_ids"))
        policy: dict[str, Any] = {"rewards": {}}
        for reward, scores in given[name].scores.items():
            policy["rewards"][reward] = _error(scores) | {"n": len(scores.values)}
            policy["rewards"][reward]["abstained"] = 1 - len(scores.values) / len(rows)
        if name != self.baseline:
            policy |= _against(given[name], given[self.baseline])
        if "spent" in rows.column_names:  # more than was answered, as with thoughts that were given up
            policy["spent"] = _error(GroupedValues.of(_numbers(rows, "spent").astype(float), groups))
        words, pairs = statistics.Grams(1), statistics.Grams(2)
        for said in map(str.split, _completions(rows)):
            words.add(said)
            pairs.add(said)
        return {
            **policy,
            "kl": None if ratios is None else _error(GroupedValues.of(ratios, groups)),
            "length": _error(GroupedValues.of(lengths.to_numpy(), groups)),
            "distinct_1": words.distinct(),
            "distinct_2": pairs.distinct(),
            "truncated": float(_numbers(rows, "truncated").mean()),
        }


def _is_asked_alike(one: Any, other: Any, step: Step) -> bool:
    """Whether two blocks of prompts that are there have the same texts."""
    ours, theirs = (loading.load(block, step.path)["prompt"][:] for block in (one, other))
    return list(map(text, ours)) == list(map(text, theirs))


def _of(rows: Any) -> list[str] | None:
    """The vocabularies of the rows' token ids, None where nobody has noted them."""
    return grouping.column(rows, "vocabulary").unique().to_pylist() if "vocabulary" in rows.column_names else None


def _numbers(rows: Any, name: str) -> NDArray[Any]:
    return grouping.column(rows, name).to_numpy()


def _prompts(rows: Any) -> Iterator[str]:
    return (text(row["prompt"]) for row in grouping.records(rows, ["prompt"]))


def _completions(rows: Any) -> Iterator[str]:
    return (text(row["completion"]) for row in grouping.records(rows, ["completion"]))


def _given(rows: Any) -> Given:
    """What a reward has abstained from is left out."""
    import numpy as np
    import pyarrow.compute as pc

    column, groups = grouping.column(rows, "scores"), _numbers(rows, "prompt_index")
    lengths = np.fromiter(map(len, _completions(rows)), dtype=np.float64, count=len(rows))
    scores, characters = {}, {}
    for reward in rows.features["scores"]:
        values = pc.struct_field(column, reward).cast("float64").to_numpy()
        scores[reward] = GroupedValues.of(values, groups)
        characters[reward] = GroupedValues.of(np.where(np.isnan(values), np.nan, lengths), groups)
    return Given(scores, characters)


def _against(mine: Given, baseline: Given) -> dict[str, Any]:
    """The differences to the baseline and the win rates, by each reward, on the prompts where both have scores."""
    differences, wins = {}, {}
    for reward, scores in mine.scores.items():
        theirs = baseline.scores[reward].among(scores.groups)
        ours = scores.among(theirs.groups)
        if len(ours.groups):
            differences[reward] = _named(statistics.mean_stderr(ours.means - theirs.means))
            lengths = (side.characters[reward].among(ours.groups) for side in (mine, baseline))
            controlled = win_rates.at_equal_length(ours, theirs, *lengths)
            wins[reward] = win_rates.as_they_are(ours, theirs) | {"equal_length": controlled}
    return {"difference": differences, "win_rate": wins}


def _names(rows: Any) -> dict[int, str]:
    """What stands for each prompt."""
    import numpy as np

    prompts, firsts = np.unique(_numbers(rows, "prompt_index"), return_index=True)
    return dict(zip(prompts.tolist(), by_prompt.identifiers(_prompts(rows.select(firsts))), strict=True))


def _means(given: dict[str, Given], names: dict[int, str]) -> dict[str, dict[str, float]]:
    """Every mean of the metrics, prompt by prompt."""
    means = {}
    for policy, of_policy in given.items():
        for reward, scores in of_policy.scores.items():
            named = map(names.__getitem__, scores.groups.tolist())
            means[f"{policy}/{reward}/mean"] = dict(zip(named, scores.means.tolist(), strict=True))
    return means


def _error(values: GroupedValues) -> dict[str, float]:
    """The mean over prompts, with its standard error."""
    return _named(statistics.mean_stderr(values.means))


def _named(mean_and_error: tuple[float, float]) -> dict[str, float]:
    return dict(zip(("mean", "stderr"), mean_and_error, strict=True))


def _samples(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """The first completion of each of the first prompts, by every policy."""
    first = {name: _first_completions(table) for name, table in rows.items()}
    samples = []
    for row_of_each in zip(*first.values(), strict=False):
        policies = {}
        for name, row in zip(first, row_of_each, strict=True):
            policies[name] = {"completion": text(row["completion"]), "scores": row["scores"]}
        samples.append({"prompt": text(row_of_each[0]["prompt"]), "policies": policies})
    return samples


def _first_completions(rows: Any) -> list[dict[str, Any]]:
    head = rows.select(range(min(len(rows), 512)))
    return [row for row in head if row["sample_index"] == 0][:SHOWN]
