"""Kind `compare`: scored completions of several policies on the same prompts, as a table and `evaluation.json`.

    compare: {scored: {sft: $sft-scores, dpo: $dpo-scores}, baseline: sft, reference: {model_name_or_path: $sft}}

Standard errors are over prompts: the completions of one prompt are averaged first, since they are not independent.
Differences are paired by prompt. KL is the mean of log pi(y|x) - log pi_ref(y|x) over the policy's own completions,
in nats per completion: the Monte Carlo estimate of KL(pi || pi_ref) where sampling was at temperature 1.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl
from trimtab.pipelines.algorithms import statistics
from trimtab.pipelines.data import loading
from trimtab.pipelines.data.forms import SCORED, Data
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


SHOWN = 20  # prompts whose completions are kept side by side


@dataclass(kw_only=True)
class Compare(Stage):
    """Artifact: `evaluation.json`, `summary.txt`."""

    scored: dict[str, Annotated[Data, SCORED]]
    baseline: str
    reference: trl.ModelConfig | None = None

    shows: ClassVar[Shows] = Shows(section="evaluation")

    def check(self, step: Step) -> None:
        if self.baseline not in self.scored:
            hint = suggest(self.baseline, self.scored)
            raise RecipeError(f"{self.baseline!r} is not one of those compared{hint}", (*step.path, "baseline"))
        super().check(step)

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        rows = {name: loading.load(block, (*step.path, "scored", name)) for name, block in self.scored.items()}
        prompts = [text(row["prompt"]) for row in rows[self.baseline]]
        for name, table in rows.items():
            if [text(prompt) for prompt in table["prompt"]] != prompts:
                raise RecipeError("other prompts than the baseline's", (*step.path, "scored", name))
        ratios = self._ratios(rows)
        distributed = PartialState()
        means = {name: _by_prompt(table) for name, table in rows.items()}
        asked = len(set(rows[self.baseline]["prompt_index"]))
        result = {
            "prompts": asked,
            "completions_per_prompt": round(len(prompts) / asked),
            "baseline": self.baseline,
            "reference": self.reference.model_name_or_path if self.reference else None,
            "policies": {name: self._policy(name, rows[name], means, ratios) for name in rows},
            "samples": _samples(rows),
        }
        if distributed.is_main_process:
            (step.output / "evaluation.json").write_text(json.dumps(result, indent=1, ensure_ascii=False))
            (step.output / "summary.txt").write_text(_table(result))
        return {
            f"{name}/{reward}/{key}": value
            for name, policy in result["policies"].items()
            for reward, numbers in policy["rewards"].items()
            for key, value in numbers.items()
            if key in ("mean", "stderr")
        }

    def _ratios(self, rows: dict[str, Any]) -> dict[str, list[float]]:
        """Summed log-ratios of each policy's own completions to the reference; each rank does its share."""
        if self.reference is None:
            return {}
        from trimtab.pipelines.sampling import transformers_engine

        policy = transformers_engine.load(self.reference)
        return {name: transformers_engine.log_ratios(policy, table) for name, table in rows.items()}

    def _policy(self, name: str, rows: Any, means: dict[str, Any], ratios: dict[str, list[float]]) -> dict[str, Any]:
        mine, theirs = means[name], means[self.baseline]
        rewards, difference, wins = {}, {}, {}
        for reward in rows.features["scores"]:
            scores = {i: values for i, values in mine[reward].items() if values}
            averages = {i: sum(values) / len(values) for i, values in scores.items()}
            mean, stderr = statistics.mean_stderr(list(averages.values()))
            given = sum(map(len, scores.values()))
            rewards[reward] = {"mean": mean, "stderr": stderr, "n": given, "abstained": 1 - given / len(rows)}
            both = [i for i in averages if theirs[reward].get(i)]
            if name != self.baseline and both:
                gaps = [averages[i] - sum(theirs[reward][i]) / len(theirs[reward][i]) for i in both]
                difference[reward] = dict(zip(("mean", "stderr"), statistics.mean_stderr(gaps), strict=True))
                shares = [statistics.win_rate(scores[i], theirs[reward][i]) for i in both]
                rate = sum(shares) / len(shares)
                low, high = statistics.wilson(rate, len(shares))
                wins[reward] = {"rate": rate, "low": low, "high": high}
        texts = [text(completion) for completion in rows["completion"]]
        lengths = [len(ids) for ids in rows["completion_ids"]]
        return {
            "rewards": rewards,
            **({"difference": difference, "win_rate": wins} if name != self.baseline else {}),
            "kl": _grouped(ratios[name], rows["prompt_index"]) if ratios else None,
            "length": _grouped(lengths, rows["prompt_index"]),
            "distinct_1": statistics.distinct(texts, 1),
            "distinct_2": statistics.distinct(texts, 2),
            "truncated": sum(rows["truncated"]) / len(rows),
        }


def _by_prompt(rows: Any) -> dict[str, dict[int, list[float]]]:
    """reward -> prompt index -> the scores given to the prompt's completions."""
    found: dict[str, dict[int, list[float]]] = {reward: defaultdict(list) for reward in rows.features["scores"]}
    for index, scores in zip(rows["prompt_index"], rows["scores"], strict=True):
        for reward, score in scores.items():
            if score is not None:
                found[reward][index].append(score)
    return found


def _grouped(values: list[float], index: list[int]) -> dict[str, float]:
    groups: dict[int, list[float]] = defaultdict(list)
    for i, value in zip(index, values, strict=True):
        groups[i].append(value)
    mean, stderr = statistics.mean_stderr([sum(group) / len(group) for group in groups.values()])
    return {"mean": mean, "stderr": stderr}


def _samples(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """The first completion of each of the first prompts, by every policy."""
    first = {name: [row for row in table.select(range(min(len(table), 512))) if row["sample_index"] == 0][:SHOWN]
             for name, table in rows.items()}  # fmt: skip
    return [
        {
            "prompt": text(together[0]["prompt"]),
            "policies": {
                name: {"completion": text(row["completion"]), "scores": row["scores"]}
                for name, row in zip(first, together, strict=True)
            },
        }
        for together in zip(*first.values(), strict=False)
    ]


def _table(result: dict[str, Any]) -> str:
    """The evaluation as text: one line per policy, mean +- standard error, win rate against the baseline."""
    head = [f"{result['prompts']} prompts x {result['completions_per_prompt']}"]
    rewards = list(next(iter(result["policies"].values()))["rewards"])
    for reward in rewards:
        head += [reward, f"wins vs {result['baseline']}"]
    lines = [[*head, "KL", "tokens", "distinct-2"]]
    for name, policy in result["policies"].items():
        cells = [name]
        for reward in rewards:
            win = policy.get("win_rate", {}).get(reward)
            cells.append(_number(policy["rewards"][reward]))
            cells.append(f"{win['rate']:.2f} [{win['low']:.2f}, {win['high']:.2f}]" if win else "-")
        cells += [_number(policy["kl"]), f"{policy['length']['mean']:.1f}", f"{policy['distinct_2']:.3f}"]
        lines.append(cells)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
    notes = [
        f"{name} - {result['baseline']}, {reward}: {gap['mean']:+.3f} +- {gap['stderr']:.3f}"
        + (f" ({gap['mean'] / gap['stderr']:+.1f} standard errors)" if gap["stderr"] else "")
        for name, policy in result["policies"].items()
        for reward, gap in policy.get("difference", {}).items()
    ]
    return "\n".join([text, *notes]) + "\n"


def _number(numbers: dict[str, float] | None) -> str:
    if numbers is None or math.isnan(numbers["mean"]):
        return "-"
    return f"{numbers['mean']:z.3f} +- {numbers['stderr']:.3f}"
