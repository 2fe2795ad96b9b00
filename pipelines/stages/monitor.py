"""Kind `monitor`: how far a policy has come and gone, from what it has sampled and how that was scored.

    monitor: {scored: $score, first: $first-score, reference: {model_name_or_path: $sft}, stop_if: {kl: 50}}

Metrics, each with its standard error over prompts where it is a mean: every reward, `length` in tokens, `entropy`
(nats per token, the mean of -log pi), `kl` to the reference and `kl_trained` to the un-extrapolated policy (nats per
completion, Monte Carlo), `distinct_2`, `truncated`. `stop_if` ends the run where the policy has blown up, before it is
trained on itself: `kl` in nats, `length` as a multiple of the first round's, `entropy` as a floor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import trl

from pipelines import data, tracking
from pipelines.algorithms import statistics
from pipelines.data import Data
from pipelines.errors import RecipeError, suggest
from pipelines.stages import Stage
from rewards import text

SCORED = (("prompt_index", "completion", "completion_ids", "logprobs", "scores"),)
LIMITS = ("kl", "length", "entropy")


@dataclass(kw_only=True)
class Monitor(Stage):
    """`first` is the first round's scored completions, `trained` the policy before its extrapolation."""

    scored: Data
    first: Data | None = None
    reference: trl.ModelConfig | None = None
    trained: trl.ModelConfig | None = None
    stop_if: dict[str, float] = field(default_factory=dict)

    def check(self, step):
        for key in self.stop_if:
            if key not in LIMITS:
                known = ", ".join(LIMITS)
                raise RecipeError(
                    f"unknown limit{suggest(key, LIMITS)} (known: {known})", (*step.path, "stop_if", key)
                )
        if "kl" in self.stop_if and self.reference is None:
            raise RecipeError("a limit on `kl` needs a `reference`", (*step.path, "stop_if", "kl"))
        data.check(self.scored, step, "scored", SCORED)

    def run(self, step):
        from accelerate import PartialState

        from pipelines import generation, training

        rows = data.load(self.scored, (*step.path, "scored"))
        groups = rows["prompt_index"][:]
        series = {f"rewards/{name}": [row[name] for row in rows["scores"]] for name in rows.features["scores"]}
        series["length"] = [len(ids) for ids in rows["completion_ids"]]
        for name, model in (("kl", self.reference), ("kl_trained", self.trained)):
            if model is not None:
                policy, _ = generation.load(model)
                series[name] = generation.log_ratios(policy, rows)
                del policy
                training.release()
        metrics = {}
        for name, values in series.items():
            metrics |= {f"{name}/{key}": value for key, value in _by_prompt(values, groups).items()}
        metrics["entropy"] = -sum(map(sum, rows["logprobs"])) / max(1, sum(map(len, rows["logprobs"])))
        metrics["distinct_2"] = statistics.distinct([text(completion) for completion in rows["completion"]], 2)
        if "truncated" in rows.column_names:
            metrics["truncated"] = sum(rows["truncated"]) / len(rows)
        if self.first is not None:
            first = data.load(self.first, (*step.path, "first"))
            start = sum(len(ids) for ids in first["completion_ids"]) / len(first)
            metrics["length/ratio"] = metrics["length/mean"] / max(1e-9, start)
        tracking.log(metrics)
        self._guard(step, metrics)
        if PartialState().is_main_process:
            (step.output / "monitor.json").write_text(json.dumps(metrics, indent=1) + "\n")
        return metrics

    def _guard(self, step, metrics: dict[str, float]) -> None:
        found = {"kl": metrics.get("kl/mean"), "length": metrics.get("length/ratio"), "entropy": metrics["entropy"]}
        for key, limit in self.stop_if.items():
            value = found[key]
            if value is not None and (value < limit if key == "entropy" else value > limit):
                word = "below" if key == "entropy" else "above"
                raise RecipeError(
                    f"{step.name}: {key} is {value:.3g}, {word} {limit:g}: the policy has left the range you trust. "
                    "The rounds before are kept; end the loop there (`rounds`), soften it (`beta`, `momentum`), or "
                    "move the limit",
                    (*step.path, "stop_if", key),
                )


def _by_prompt(values: list[float | None], groups: list[int]) -> dict[str, float]:
    """Mean over prompts of the mean over each one's completions, and its standard error."""
    found: dict[int, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        if value is not None:
            found.setdefault(group, []).append(value)
    if not found:
        return {}
    mean, stderr = statistics.mean_stderr([sum(group) / len(group) for group in found.values()])
    return {"mean": mean, "stderr": stderr}
