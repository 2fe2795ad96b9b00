"""Kind `best_of`: what choosing among n samples would give, from scored completions that are there.

    best: {completions: $score, gold: right, reward: helpful, n: [1, 4, 16]}

For each n up to the number of a prompt's completions, the mean `gold` score

- `one`: of one sample, and `greedy` of the scored greedy completions in that block,
- `chosen`: of the sample that `reward` scores highest (RM@n),
- `voted`: of the answer that most samples give (Maj@n), an answer being a last box, what follows a last `####`, or the
  last number; of samples without one there is no vote,
- `passing`: of the best sample (pass@n), a gold score of at least 0.5 being a pass,

with standard errors over prompts. Each is the mean over all sets of n of a prompt's samples. The rise of `chosen` with
n, and its fall where the reward is over-optimised, is the curve of Gao et al. 2023 (https://arxiv.org/abs/2210.10760)
for best-of-n; `gained` is the reward of the chosen sample, which rises whatever becomes of gold, and `kl` is
log n - (n - 1) / n, best-of-n's KL to the policy in nats at most.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.algorithms import best_of, statistics
from trimtab.pipelines.data import counting, grouping, promises
from trimtab.pipelines.data.forms import SCORED, Data
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.reporting import by_prompt
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import _answers, text

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature

READ = ("prompt", "completion", "prompt_index", "scores")


@dataclass(kw_only=True)
class BestOf(Stage):
    """`gold` and `reward` are rewards of the scores. Artifact: `best_of.json`, `by_prompt.parquet`."""

    completions: Annotated[Data, SCORED]
    gold: str
    reward: str | None = None
    n: list[int] = field(default_factory=lambda: [1, 4, 16])
    votes: bool = True
    greedy: Annotated[Data | None, SCORED] = None

    shows: ClassVar[Shows] = Shows(results=("chosen/*/mean", "voted/*/mean"), compares=("*/mean",))

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        return {**super().small(block, miniature), "n": [1, 2]}

    def check(self, step: Step) -> None:
        if not self.n or min(self.n) < 1:
            raise RecipeError(f"must be numbers of samples from 1 on, got {self.n}", (*step.path, "n"))
        promise = promises.of(self.completions, step)
        if promise.answers and max(self.n) > promise.answers:
            message = f"every prompt will have {promise.answers} answers, and {max(self.n)} are asked for"
            raise RecipeError(f"{message}: raise `num_generations`", (*step.path, "n"))
        if promise.rewards:
            self._known("gold", promise.rewards, step)
            self._known("reward", promise.rewards, step)
        super().check(step)

    def _known(self, key: str, rewards: Sequence[str], step: Step) -> None:
        """Raises RecipeError for a reward that is none of the scores."""
        name = getattr(self, key)
        if name is not None and name not in rewards:
            message = f"the completions have no scores by {name!r}{suggest(name, rewards)} (but {', '.join(rewards)})"
            raise RecipeError(message, (*step.path, key))

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        rows = counting.rows(self.completions, step, "completions")
        for key in ("gold", "reward"):
            self._known(key, list(rows.features["scores"]), step)
        prompts: list[str] = []
        curves: dict[str, list[float]] = {}
        dropped = 0
        for group in grouping.by_column(rows, "prompt_index").rows(rows, READ):
            samples = [row for row in group if self._is_scored(row)]
            if len(samples) < max(self.n):
                dropped += 1
                continue
            prompts.append(text(group[0]["prompt"]))
            for name, value in self._of_prompt(samples, f"{step.seed}-{len(prompts)}").items():
                curves.setdefault(name, []).append(value)
        if not prompts:
            message = f"no prompt has {max(self.n)} completions with scores: sample more, or lower `n`"
            raise RecipeError(message, (*step.path, "n"))
        metrics: Metrics = {"prompts": len(prompts), "prompts_dropped": dropped}
        for name, values in curves.items():
            metrics[f"{name}/mean"], metrics[f"{name}/stderr"] = statistics.mean_stderr(values)
        metrics |= {f"kl/{n}": math.log(n) - (n - 1) / n for n in self.n}
        metrics |= self._greedy(step)
        if PartialState().is_main_process:
            (step.output / "best_of.json").write_text(json.dumps({"n": self.n, "metrics": metrics}, indent=1))
            names = by_prompt.identifiers(prompts)
            means = {f"{name}/mean": dict(zip(names, values, strict=True)) for name, values in curves.items()}
            by_prompt.write(step.output, means)
        return metrics

    def _is_scored(self, row: Mapping[str, Any]) -> bool:
        scores = row["scores"]
        return scores[self.gold] is not None and (self.reward is None or scores[self.reward] is not None)

    def _of_prompt(self, samples: Sequence[Mapping[str, Any]], seed: str) -> dict[str, float]:
        """Every number of one prompt."""
        gold = [row["scores"][self.gold] for row in samples]
        answers = [_answers.vote(text(row["completion"])) for row in samples] if self.votes else []
        values = {"one": sum(gold) / len(gold)}
        for n in self.n:
            values[f"passing/{n}"] = best_of.passing(gold, n)
            if self.votes:
                values[f"voted/{n}"] = best_of.voted(answers, gold, n, f"{seed}-{n}")
            if self.reward is not None:
                scores = [row["scores"][self.reward] for row in samples]
                values[f"chosen/{n}"] = best_of.chosen(scores, gold, n)
                values[f"gained/{n}"] = best_of.chosen(scores, scores, n)
        return values

    def _greedy(self, step: Step) -> Metrics:
        """The mean gold score of the greedy completions, one of each prompt."""
        if self.greedy is None:
            return {}
        rows = counting.rows(self.greedy, step, "greedy")
        given = [scores.get(self.gold) for scores in rows["scores"]]
        numbers = statistics.grouped(given, rows["prompt_index"][:])
        return {f"greedy/{key}": value for key, value in numbers.items()}
