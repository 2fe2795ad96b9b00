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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import trl

from trimtab.pipelines.algorithms import drift, statistics
from trimtab.pipelines.data import counting, loading
from trimtab.pipelines.data.forms import CONVERSATIONS, SCORED, Data
from trimtab.pipelines.forecasting.passes import told
from trimtab.pipelines.forecasting.work import Held, Work
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.stops import stop
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.scoring.combining import Combination
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import _vocabulary, text
from trimtab.rewards._rendering import render

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature


WATCHED = SCORED.where("completion_ids", "logprobs")
LIMITS = {  # key -> the metric, and on which side of the limit the policy has left the range
    "kl": ("kl/mean", "above"),
    "length": ("length/ratio", "above"),
    "real_nll": ("real_nll", "above"),
    "entropy": ("entropy", "below"),
    "distinct_2": ("distinct_2/ratio", "below"),
}
REAL_ROWS = 500


@dataclass(kw_only=True)
class Monitor(Stage):
    """`first` is the first round's scored completions, `trained` the policy before its extrapolation.

    With `real`, held-out rows of `prompt` and `completion` or `messages`, `real_nll` is their negative log-likelihood
    under `policy`, in nats per token. `curation` has a loop's `reward` weights, `missing`, `temperature` and
    `real_fraction`, `previous` is its round before. With `on_limit: stop` a limit ends a loop without an error (see
    `last_good`).
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
        limits = {}  # that nothing meets: a random model is beyond every other one
        for key in block.get("stop_if") or {}:
            if key in LIMITS:
                limits[key] = -1 if LIMITS[key][1] == "below" else 1e9
        return super().small(block, miniature) | ({"stop_if": limits} if limits else {})

    def check(self, step: Step) -> None:
        for key in self.stop_if:
            if key not in LIMITS:
                hint = f"{suggest(key, LIMITS)} (known: {', '.join(LIMITS)})"
                raise RecipeError(f"unknown limit{hint}", (*step.path, "stop_if", key))
        if "kl" in self.stop_if and self.reference is None:
            raise RecipeError("a limit on `kl` needs a `reference`", (*step.path, "stop_if", "kl"))
        if "real_nll" in self.stop_if and self.real is None:
            raise RecipeError("a limit on `real_nll` needs `real` rows", (*step.path, "stop_if", "real_nll"))
        if self.first is None and step.written == step.stage:  # in a loop it is the first round that has none
            for key in filter(self.stop_if.__contains__, drift.OF_FIRST):
                message = "is a multiple of the `first` round's, which is not there"
                raise RecipeError(message, (*step.path, "stop_if", key))
        if self.real is not None and self.policy is None:
            raise RecipeError("the likelihood of real data needs the `policy`", (*step.path, "real"))
        super().check(step)

    def work(self, known: Known) -> Work:
        rows = known.rows("scored")
        models = [known.model(block) for block in (self.reference, self.trained) if block is not None]
        passes = [told(model, rows, rows.count) for model in models]
        if self.real is not None and self.policy is not None:
            real = known.rows("real")
            passes.append(told(known.model(self.policy), real, min(REAL_ROWS, real.count)))
        held = tuple(Held(one.model) for one in passes[:1])
        return Work("models" if passes else "rows", held, tuple(passes), handled=2 * rows.count)

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        rows = counting.rows(self.scored, step, "scored")
        first = counting.rows(self.first, step, "first") if self.first else None
        self._check_vocabularies(step, rows, first)
        metrics = self._means(step, rows, first)
        metrics["entropy"] = -sum(map(sum, rows["logprobs"])) / max(1, sum(map(len, rows["logprobs"])))
        metrics |= drift.diversity(_texts(rows), rows["prompt_index"], _texts(first) if first else None)
        if "truncated" in rows.column_names:
            metrics["truncated"] = sum(rows["truncated"]) / len(rows)
        if first:
            start = sum(len(ids) for ids in first["completion_ids"]) / len(first)
            metrics["length/ratio"] = metrics["length/mean"] / max(1e-9, start)
        if self.curation:
            previous = counting.rows(self.previous, step, "previous") if self.previous else None
            metrics |= _theory(self.curation, rows, previous, first)
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

    def _check_vocabularies(self, step: Step, rows: Any, first: Any | None) -> None:
        """Raises RecipeError where token ids, or counts of tokens, of two vocabularies would meet."""
        from trimtab.pipelines.sampling import transformers_engine

        if "vocabulary" not in rows.column_names:
            return
        cure = "numbers of tokens can only be compared within one vocabulary"
        for key, model in (("reference", self.reference), ("trained", self.trained)):
            if model is not None and _vocabulary.foreign(
                transformers_engine.load_tokenizer(model), rows["vocabulary"][:]
            ):
                message = f"{model.model_name_or_path} has another vocabulary than the policy that sampled: {cure}"
                raise RecipeError(message, (*step.path, key))
        if first and "vocabulary" in first.column_names and set(first["vocabulary"]) != set(rows["vocabulary"]):
            raise RecipeError(f"was sampled with another vocabulary: {cure}", (*step.path, "first"))

    def _means(self, step: Step, rows: Any, first: Any | None) -> dict[str, float]:
        """What is a number of each completion, as means over prompts with their standard errors."""
        from accelerate.utils import release_memory

        from trimtab.pipelines.sampling import transformers_engine

        rewards = list(rows.features["scores"])
        series = {f"rewards/{name}": [scores[name] for scores in rows["scores"]] for name in rewards}
        for name in rewards if first else ():
            series[f"win_rate/{name}"] = _win_shares(rows, first, name)
        series["length"] = [len(ids) for ids in rows["completion_ids"]]
        for name, model in (("kl", self.reference), ("kl_trained", self.trained)):
            if model is not None:
                policy = transformers_engine.load(model)
                series[name] = transformers_engine.log_ratios(policy, rows, f"{step.name}, {name}")
                del policy
                release_memory()
        prompts = rows["prompt_index"][:]
        metrics: dict[str, float] = {}
        for name, values in series.items():
            for key, value in statistics.grouped(values, prompts).items():
                metrics[f"{name}/{key}"] = value
        return metrics

    def _likelihood(self, step: Step) -> float:
        """Mean negative log-likelihood of the real completions, in nats per token. Every rank computes all of it."""
        from accelerate.utils import release_memory

        from trimtab.pipelines.sampling import transformers_engine

        policy, tokenizer = transformers_engine.load(self.policy), transformers_engine.load_tokenizer(self.policy)
        context = getattr(policy.config, "max_position_embeddings", None)
        prompts, completions = [], []
        loaded = loading.read(self.real, (*step.path, "real"))
        rows = loading.joined(loaded.parts)
        taken = range(min(REAL_ROWS, len(rows)))
        counting.note(self.real, loaded, taken, step, "real")
        for row in rows.select(taken):
            if "messages" in row:
                prompt, completion = row["messages"][:-1], row["messages"][-1:]
            else:
                prompt, completion = row["prompt"], row["completion"]
            tokens = render(tokenizer, prompt, completion, row)
            start = max(1, tokens.start)  # the first token of all has nothing to follow
            if learned := tokens.ids[start:context]:  # what the model can see of it
                prompts.append(tokens.ids[:start])
                completions.append(learned)
        logprobs = transformers_engine.logprobs(policy, prompts, completions, f"{step.name}, real rows")
        del policy
        release_memory()
        return -sum(map(sum, logprobs)) / sum(map(len, logprobs))

    def _limit(self, step: Step, metrics: dict[str, float]) -> str | None:
        """Which limit is met, in words, or None."""
        for key, limit in self.stop_if.items():
            metric, side = LIMITS[key]
            value = metrics.get(metric)
            if value is not None and (value < limit if side == "below" else value > limit):
                return f"{step.name}: {key} is {value:.3g}, {side} {limit:g}"
        return None


def _texts(rows: Any) -> list[str]:
    return [text(completion) for completion in rows["completion"]]


def _win_shares(rows: Any, first: Any, reward: str) -> list[float | None]:
    prompts, first_prompts = ([text(prompt) for prompt in table["prompt"]] for table in (rows, first))
    scores = [scores[reward] for scores in rows["scores"]]
    return drift.win_shares(prompts, scores, first_prompts, [scores.get(reward) for scores in first["scores"]])


def _theory(curation: dict[str, Any], rows: Any, previous: Any | None, first: Any | None) -> dict[str, float]:
    """What a round should have brought: see the module's docstring."""
    share, temperature = curation["real_fraction"], curation["temperature"]
    ratio = (1 - share) / share if share else math.inf
    combination = Combination.of(curation["reward"], curation.get("missing", "abstain"))
    scores = _totals(rows, combination)
    if not 0 < temperature < math.inf or not ratio or not scores:
        return {}
    before = previous if math.isinf(ratio) else first
    return drift.promised(scores, _totals(before, combination) if before else None, temperature, ratio)


def _totals(rows: Any, combination: Combination) -> list[list[float]]:
    """Each prompt's combined scores, without completions that have none."""
    groups: dict[int, list[float]] = {}
    for prompt, scores in zip(rows["prompt_index"], rows["scores"], strict=True):
        total = combination(scores)
        if total is not None:
            groups.setdefault(prompt, []).append(total)
    return list(groups.values())
