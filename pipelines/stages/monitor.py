"""Kind `monitor`: how far a policy has come and gone, from what it has sampled and how that was scored.

    monitor: {scored: $score, first: $first-score, reference: {model_name_or_path: $sft}, stop_if: {kl: 50}}

Metrics, each with its standard error over prompts where it is a mean: every reward, `length` in tokens, `entropy`
(nats per token, the mean of -log pi), `kl` to the reference and `kl_trained` to the un-extrapolated policy (nats per
completion, Monte Carlo), `truncated`, and of diversity `distinct_2` (different word pairs over all) and `similarity`
(mean Jaccard similarity of the word pairs of two completions of one prompt). With `first`, `win_rate/NAME` is the
chance that a completion has more of that reward than one of the first round's: on its own prompt where both rounds
have it, on any prompt where they have different ones (the error is then that of this round's sampling alone);
`length/ratio` and `distinct_2/ratio` are relative to the first round, and `vocabulary` is the share of its words that
are still said.

With `curation`, what the theory of curated retraining says of E[e^{r / temperature}] and of KL (Ferbach et al. 2024,
arXiv 2407.09499), for unlimited data and a model that fits anything: `exp_reward/log` is its logarithm,
`exp_reward/log_promised` what it should be at least, by S1 from the round before or, with real data, by S3 from the
first, and `kl_bound` is S4's.

`stop_if` ends the run where the policy has blown up, before it is trained on itself: `kl` in nats, `length` and
`distinct_2` as multiples of the first round's, `entropy` as a floor, `real_nll` in nats per token.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import trl
from trimtab.pipelines.algorithms import statistics
from trimtab.pipelines.data import loading
from trimtab.pipelines.data.forms import CONVERSATIONS, SCORED, Data
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.stops import stop
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature


WATCHED = SCORED.where("completion_ids", "logprobs")
LIMITS = {"kl": "above", "length": "above", "real_nll": "above", "entropy": "below", "distinct_2": "below"}
REAL_ROWS = 500


@dataclass(kw_only=True)
class Monitor(Stage):
    """`first` is the first round's scored completions, `trained` the policy before its extrapolation.

    With `real`, held-out rows of `prompt` and `completion` or `messages`, `real_nll` is their negative log-likelihood
    under `policy`, in nats per token. `curation` has the `reward` weights, `temperature` and `real_fraction` of a
    loop, `previous` is its round before. With `on_limit: stop` a limit ends a loop without an error (see `last_good`).
    """

    scored: Annotated[Data, WATCHED]
    first: Annotated[Data | None, WATCHED] = None
    previous: Annotated[Data | None, WATCHED] = None
    curation: dict[str, Any] | None = None
    reference: trl.ModelConfig | None = None
    trained: trl.ModelConfig | None = None
    policy: trl.ModelConfig | None = None
    real: Annotated[Data | None, CONVERSATIONS] = None
    on_limit: Literal["error", "stop"] = "error"
    stop_if: dict[str, float] = field(default_factory=dict)

    shows: ClassVar[Shows] = Shows(
        {
            "Reward": ("rewards/*/mean",),
            "Win rate against round 1": ("win_rate/*/mean",),
            "KL (nats)": ("kl/mean", "kl_trained/mean", "kl_bound"),
            "log E[exp(reward)]": ("exp_reward/*",),
            "Diversity": ("distinct_2/ratio", "vocabulary", "similarity"),
            "Real data (nats per token)": ("real_nll",),
            "Tokens": ("length/mean",),
            "Entropy (nats per token)": ("entropy",),
        },
        ("rewards/*/mean", "kl/mean"),
        by_round=True,
    )

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        limits = {key: -1 if LIMITS[key] == "below" else 1e9 for key in block.get("stop_if") or {} if key in LIMITS}
        changes = super().small(block, miniature)
        return changes | ({"stop_if": limits} if limits else {})  # a random model is beyond every limit

    def check(self, step: Step) -> None:
        for key in self.stop_if:
            if key not in LIMITS:
                known = ", ".join(LIMITS)
                raise RecipeError(
                    f"unknown limit{suggest(key, LIMITS)} (known: {known})", (*step.path, "stop_if", key)
                )
        if "kl" in self.stop_if and self.reference is None:
            raise RecipeError("a limit on `kl` needs a `reference`", (*step.path, "stop_if", "kl"))
        if self.real is not None and self.policy is None:
            raise RecipeError("the likelihood of real data needs the `policy`", (*step.path, "real"))
        super().check(step)

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState
        from accelerate.utils import release_memory
        from trimtab.pipelines.sampling import transformers_engine

        rows = loading.load(self.scored, (*step.path, "scored"))
        groups = rows["prompt_index"][:]
        series = {f"rewards/{name}": [row[name] for row in rows["scores"]] for name in rows.features["scores"]}
        first = loading.load(self.first, (*step.path, "first")) if self.first else None
        for name in rows.features["scores"] if first else ():
            series[f"win_rate/{name}"] = _wins(rows, first, name)
        series["length"] = [len(ids) for ids in rows["completion_ids"]]
        for name, model in (("kl", self.reference), ("kl_trained", self.trained)):
            if model is not None:
                policy = transformers_engine.load(model)
                series[name] = transformers_engine.log_ratios(policy, rows)
                del policy
                release_memory()
        metrics = {}
        for name, values in series.items():
            metrics |= {f"{name}/{key}": value for key, value in _by_prompt(values, groups).items()}
        metrics["entropy"] = -sum(map(sum, rows["logprobs"])) / max(1, sum(map(len, rows["logprobs"])))
        metrics |= _diversity(rows, first)
        if "truncated" in rows.column_names:
            metrics["truncated"] = sum(rows["truncated"]) / len(rows)
        if first:
            start = sum(len(ids) for ids in first["completion_ids"]) / len(first)
            metrics["length/ratio"] = metrics["length/mean"] / max(1e-9, start)
        if self.curation:
            before = loading.load(self.previous, (*step.path, "previous")) if self.previous else None
            metrics |= _theory(self.curation, rows, before, first)
        if self.real is not None:
            metrics["real_nll"] = self._likelihood(step)
        tracking.log(metrics)
        reason = self._limit(step, metrics)
        if reason and self.on_limit == "error":
            cure = "The rounds before are kept; end the loop there (`rounds`), soften it, or move the limit"
            raise RecipeError(f"{reason}: the policy has left the range you trust. {cure}", (*step.path, "stop_if"))
        if PartialState().is_main_process:
            (step.output / "monitor.json").write_text(json.dumps(metrics, indent=1) + "\n")
            if reason:
                stop(step.output, reason)
        return metrics

    def _likelihood(self, step: Step) -> float:
        """Mean negative log-likelihood of the real completions, in nats per token. Every rank computes all of it."""
        from accelerate.utils import release_memory
        from trimtab.pipelines.sampling import transformers_engine

        policy, tokenizer = transformers_engine.load(self.policy), transformers_engine.load_tokenizer(self.policy)
        context = getattr(policy.config, "max_position_embeddings", None)
        prompts, completions = [], []
        rows = loading.load(self.real, (*step.path, "real"))
        for row in rows.select(range(min(REAL_ROWS, len(rows)))):
            prompt, completion = (row["messages"][:-1], row["messages"][-1:]) if "messages" in row else (
                row["prompt"], row["completion"])  # fmt: skip
            begin = transformers_engine.encode(tokenizer, prompt)
            if isinstance(completion, str):
                whole = tokenizer(prompt + completion + (tokenizer.eos_token or ""))["input_ids"]
            else:
                whole = tokenizer.apply_chat_template([*prompt, *completion], return_dict=True)["input_ids"]
            if learned := whole[len(begin) : context]:  # what the model can see of it
                prompts.append(begin)
                completions.append(learned)
        found = transformers_engine.logprobs(policy, prompts, completions)
        del policy
        release_memory()
        return -sum(map(sum, found)) / sum(map(len, found))

    def _limit(self, step: Step, metrics: dict[str, float]) -> str | None:
        """Which limit is met, in words, or None."""
        found = {**metrics, "kl": metrics.get("kl/mean"), "length": metrics.get("length/ratio"),
                 "distinct_2": metrics.get("distinct_2/ratio")}  # fmt: skip
        for key, limit in self.stop_if.items():
            value = found.get(key)
            if value is not None and (value < limit if LIMITS[key] == "below" else value > limit):
                return f"{step.name}: {key} is {value:.3g}, {LIMITS[key]} {limit:g}"
        return None


def _wins(rows: Any, first: Any, name: str) -> list[float | None]:
    """For each row, the share of the first round's completions that it beats (a tie is half), None without a score."""
    before: dict[str, list[float]] = {}
    for prompt, scores in zip(first["prompt"], first["scores"], strict=True):
        known = before.setdefault(text(prompt), [])
        if scores.get(name) is not None:
            known.append(scores[name])
    prompts = [text(prompt) for prompt in rows["prompt"]]
    if not before.keys() >= set(prompts):  # a fold of its own
        prompts, before = [""] * len(prompts), {"": [score for scores in before.values() for score in scores]}
    ordered = {prompt: sorted(scores) for prompt, scores in before.items()}
    wins: list[float | None] = []
    for prompt, scores in zip(prompts, rows["scores"], strict=True):
        score, others = scores[name], ordered[prompt]
        known = score is not None and others
        wins.append((bisect_left(others, score) + bisect_right(others, score)) / (2 * len(others)) if known else None)
    return wins


def _diversity(rows: Any, first: Any | None) -> dict[str, float]:
    texts = [text(completion) for completion in rows["completion"]]
    groups: dict[int, list[str]] = {}
    for prompt, completion in zip(rows["prompt_index"], texts, strict=True):
        groups.setdefault(prompt, []).append(completion)
    found = {"distinct_2": statistics.distinct(texts, 2)}
    similar = [value for value in map(statistics.similarity, groups.values()) if value is not None]
    if similar:
        found["similarity"] = sum(similar) / len(similar)
    if first:
        before = [text(completion) for completion in first["completion"]]
        found["distinct_2/ratio"] = found["distinct_2"] / max(1e-9, statistics.distinct(before, 2))
        words = [set(" ".join(completions).split()) for completions in (texts, before)]
        found["vocabulary"] = len(words[0] & words[1]) / max(1, len(words[1]))
    return found


def _theory(curation: dict[str, Any], rows: Any, previous: Any | None, first: Any | None) -> dict[str, float]:
    """What a round should have brought: see the module's docstring."""
    from trimtab.pipelines.algorithms import curation as theory

    share, temperature = curation["real_fraction"], curation["temperature"]
    ratio = (1 - share) / share if share else math.inf
    now = _totals(rows, curation["reward"])
    if not 0 < temperature < math.inf or not ratio or not now:
        return {}
    k = max(map(len, now))
    found = {"exp_reward/log": theory.log_exp_reward(now, temperature)[0]}
    bound = theory.divergence_bound(k, ratio)
    if math.isfinite(bound):
        found["kl_bound"] = bound
    base = previous if math.isinf(ratio) else first
    if base:
        found["exp_reward/log_promised"] = theory.log_exp_reward(
            _totals(base, curation["reward"]), temperature, ratio
        )[1]
    return found


def _totals(rows: Any, weights: dict[str, float]) -> list[list[float]]:
    """Each prompt's weighted scores, without completions that a reward has abstained from."""
    groups: dict[int, list[float]] = {}
    for prompt, scores in zip(rows["prompt_index"], rows["scores"], strict=True):
        total = statistics.weighted(scores, weights)
        if total is not None:
            groups.setdefault(prompt, []).append(total)
    return list(groups.values())


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
