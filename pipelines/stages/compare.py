"""Kind `compare`: scored completions of several policies on the same prompts, as a table and `evaluation.json`.

    compare: {scored: {sft: $sft-scores, dpo: $dpo-scores}, baseline: sft, reference: {model_name_or_path: $sft}}

Standard errors are over prompts: the completions of one prompt are averaged first, since they are not independent.
Differences are paired by prompt. KL is the mean of log pi(y|x) - log pi_ref(y|x) over the policy's own completions,
in nats per completion: the Monte Carlo estimate of KL(pi || pi_ref) where sampling was at temperature 1. A policy
whose vocabulary is not the reference's has none, since its token ids mean something else there; a note says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl

from trimtab.pipelines.algorithms import statistics
from trimtab.pipelines.data import loading, promises
from trimtab.pipelines.data.forms import SCORED, Data
from trimtab.pipelines.forecasting.passes import told
from trimtab.pipelines.forecasting.work import Held, Work
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.reporting import by_prompt
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import _vocabulary, text

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step


SHOWN = 20  # prompts whose completions are kept side by side
Scores = dict[str, dict[int, list[float]]]  # reward -> prompt_index -> the scores of the prompt's completions


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

        rows = {name: loading.load(block, (*step.path, "scored", name)) for name, block in self.scored.items()}
        prompts = [text(row["prompt"]) for row in rows[self.baseline]]
        for name, table in rows.items():
            if [text(prompt) for prompt in table["prompt"]] != prompts:
                raise RecipeError("other prompts than the baseline's", (*step.path, "scored", name))
        ratios = self._ratios(step, rows)
        notes = self._notes(rows, ratios)
        scores = {name: _by_prompt(table) for name, table in rows.items()}
        policies = {name: self._policy(name, rows[name], scores, ratios.get(name)) for name in rows}
        asked = len(set(rows[self.baseline]["prompt_index"]))
        result = {
            "prompts": asked,
            "completions_per_prompt": round(len(prompts) / asked),
            "baseline": self.baseline,
            "reference": self.reference.model_name_or_path if self.reference else None,
            "notes": notes,
            "policies": policies,
            "samples": _samples(rows),
        }
        if PartialState().is_main_process:
            (step.output / "evaluation.json").write_text(json.dumps(result, indent=1, ensure_ascii=False))
            (step.output / "summary.txt").write_text(_summary(result))
            by_prompt.write(step.output, _means(scores, rows[self.baseline]["prompt_index"], prompts))
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

    def _policy(self, name: str, rows: Any, scores: dict[str, Scores], ratios: list[float] | None) -> dict[str, Any]:
        """What evaluation.json says of one policy."""
        groups = rows["prompt_index"]
        texts = [text(completion) for completion in rows["completion"]]
        policy: dict[str, Any] = {"rewards": {}}
        for reward in rows.features["scores"]:
            policy["rewards"][reward] = _mean(scores[name][reward], len(rows))
        if name != self.baseline:
            policy |= {"difference": {}, "win_rate": {}}
            for reward in rows.features["scores"]:
                mine, theirs = _on_common_prompts(scores[name][reward], scores[self.baseline][reward])
                if mine:
                    policy["difference"][reward] = _difference(mine, theirs)
                    policy["win_rate"][reward] = _win_rate(mine, theirs)
        return {
            **policy,
            "kl": None if ratios is None else statistics.grouped(ratios, groups),
            "length": statistics.grouped([len(ids) for ids in rows["completion_ids"]], groups),
            "distinct_1": statistics.distinct(texts, 1),
            "distinct_2": statistics.distinct(texts, 2),
            "truncated": sum(rows["truncated"]) / len(rows),
        }


def _is_asked_alike(one: Any, other: Any, step: Step) -> bool:
    """Whether two blocks of prompts that are there have the same texts."""
    ours, theirs = (loading.load(block, step.path)["prompt"][:] for block in (one, other))
    return list(map(text, ours)) == list(map(text, theirs))


def _of(rows: Any) -> list[str] | None:
    """The vocabulary of each row's token ids, None where nobody has noted it."""
    return rows["vocabulary"][:] if "vocabulary" in rows.column_names else None


def _by_prompt(rows: Any) -> Scores:
    """The scores that were given, without those of a reward that has abstained."""
    scores: Scores = {reward: {} for reward in rows.features["scores"]}
    for index, given in zip(rows["prompt_index"], rows["scores"], strict=True):
        for reward, score in given.items():
            if score is not None:
                scores[reward].setdefault(index, []).append(score)
    return scores


def _means(scores: dict[str, Scores], groups: Sequence[int], prompts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Every mean of the metrics, prompt by prompt."""
    asked = dict(zip(groups, prompts, strict=True))
    names = dict(zip(asked, by_prompt.identifiers(asked.values()), strict=True))
    means: dict[str, dict[str, float]] = {}
    for policy, of_rewards in scores.items():
        for reward, given in of_rewards.items():
            means[f"{policy}/{reward}/mean"] = {names[index]: sum(some) / len(some) for index, some in given.items()}
    return means


def _mean(scores: dict[int, list[float]], completions: int) -> dict[str, float]:
    mean, stderr = statistics.mean_stderr([sum(group) / len(group) for group in scores.values()])
    given = sum(map(len, scores.values()))
    return {"mean": mean, "stderr": stderr, "n": given, "abstained": 1 - given / completions}


def _on_common_prompts(
    mine: dict[int, list[float]], theirs: dict[int, list[float]]
) -> tuple[list[list[float]], list[list[float]]]:
    """The scores of two policies on every prompt where both have some."""
    both = [index for index in mine if index in theirs]
    return [mine[index] for index in both], [theirs[index] for index in both]


def _difference(mine: list[list[float]], theirs: list[list[float]]) -> dict[str, float]:
    gaps = [sum(a) / len(a) - sum(b) / len(b) for a, b in zip(mine, theirs, strict=True)]
    mean, stderr = statistics.mean_stderr(gaps)
    return {"mean": mean, "stderr": stderr}


def _win_rate(mine: list[list[float]], theirs: list[list[float]]) -> dict[str, float]:
    shares = [statistics.win_rate(a, b) for a, b in zip(mine, theirs, strict=True)]
    rate = sum(shares) / len(shares)
    low, high = statistics.wilson(rate, len(shares))
    return {"rate": rate, "low": low, "high": high}


def _samples(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """The first completion of each of the first prompts, by every policy."""
    first = {name: _first_completions(table) for name, table in rows.items()}
    samples = []
    for side_by_side in zip(*first.values(), strict=False):
        policies = {}
        for name, row in zip(first, side_by_side, strict=True):
            policies[name] = {"completion": text(row["completion"]), "scores": row["scores"]}
        samples.append({"prompt": text(side_by_side[0]["prompt"]), "policies": policies})
    return samples


def _first_completions(rows: Any) -> list[dict[str, Any]]:
    head = rows.select(range(min(len(rows), 512)))
    return [row for row in head if row["sample_index"] == 0][:SHOWN]


def _summary(result: dict[str, Any]) -> str:
    """The evaluation as text: one line per policy, mean +- standard error, win rate against the baseline."""
    rewards = list(next(iter(result["policies"].values()))["rewards"])
    head = [f"{result['prompts']} prompts x {result['completions_per_prompt']}"]
    for reward in rewards:
        head += [reward, f"wins vs {result['baseline']}"]
    table = [[*head, "KL", "tokens", "distinct-2"]]
    notes = list(result["notes"])
    for name, policy in result["policies"].items():
        table.append([name, *_cells(policy, rewards)])
        for reward, gap in policy.get("difference", {}).items():
            notes.append(f"{name} - {result['baseline']}, {reward}: {_gap(gap)}")
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for cells in table:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join([*lines, *notes]) + "\n"


def _cells(policy: dict[str, Any], rewards: list[str]) -> list[str]:
    cells = []
    for reward in rewards:
        wins = policy.get("win_rate", {}).get(reward)
        cells.append(_number(policy["rewards"][reward]))
        cells.append(f"{wins['rate']:.2f} [{wins['low']:.2f}, {wins['high']:.2f}]" if wins else "-")
    return [*cells, _number(policy["kl"]), f"{policy['length']['mean']:.1f}", f"{policy['distinct_2']:.3f}"]


def _gap(gap: dict[str, float]) -> str:
    measured = f"{gap['mean']:+.3f} +- {gap['stderr']:.3f}"
    if not gap["stderr"]:
        return measured
    return f"{measured} ({gap['mean'] / gap['stderr']:+.1f} standard errors)"


def _number(numbers: dict[str, float] | None) -> str:
    if numbers is None or math.isnan(numbers["mean"]):
        return "-"
    return f"{numbers['mean']:z.3f} +- {numbers['stderr']:.3f}"
