"""Kind `reward_report`: how good rewards are, on held-out preferences.

    quality:
      kind: reward_report
      data: {path: preferences.jsonl, split: test}
      rewards: {helpful: {kind: reward_model, path: $helpful}, long: {kind: length, target: 500}}
      subset: subset                       # the column that names a row's source or kind
      require: {helpful/accuracy/mean: 0.6}  # less than that ends the run here, with the report kept

      rounds: {before: $improve-1-sample, later: $improve-2-sample}  # completions of one policy after another
      gold: right                          # one of the rewards, which is true

Both answers of every pair are scored as `score` does, with `batch_size`, `on_failure` and scores that are kept. Beside
the data's columns a reward is given `other`, the pair's other answer: `{kind: judge, mode: pairwise, against: other}`.

A policy that is trained on a reward leaves the answers on which that was good. So `rounds` has each reward's numbers
on the completions of each policy: mean and spread, its correlation with length, and best of n; with `gold`, how often
it orders two answers to a prompt as gold does, and what gold its best of n has. Where that no longer rises with n, or
accuracy falls to 0.5, the policy has left the range in which the reward can be trusted.

Pairs in which a reward has no score of an answer are left out of its numbers and counted in `unscored`. A reward of
which all numbers are good can still be gamed by a policy that is trained on it: look at `best_of`, too.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.algorithms import reward_quality, reward_rounds, statistics
from trimtab.pipelines.data import counting, grouping
from trimtab.pipelines.data.forms import PREFERENCE, SAMPLED, Data
from trimtab.pipelines.forecasting.passes import judged
from trimtab.pipelines.forecasting.work import Work
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.reward_blocks import RewardBlock, cut
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting import by_prompt, reward_numbers
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step

Scores = Sequence[float | None]


@dataclass(kw_only=True)
class RewardReport(Stage):
    """`batch_size` is answers per call of a reward. Artifact: `reward_report.json`, `by_prompt.parquet`."""

    data: Annotated[Data, PREFERENCE]
    rewards: dict[str, RewardBlock]
    subset: str | None = None
    batch_size: int = 256
    rounds: dict[str, Annotated[Data, SAMPLED]] = field(default_factory=dict)
    gold: str | None = None

    neutral_when_empty: ClassVar[tuple[str, ...]] = ("rounds", "gold")
    neutral: ClassVar[tuple[str, ...]] = ("batch_size",)
    shows: ClassVar[Shows] = Shows(
        results=("*/accuracy/mean",), section="reward report", compares=("*/accuracy/mean",)
    )

    @classmethod
    def check_required(cls, name: str, options: dict[str, Any], numbers: Collection[str]) -> None:
        cls.as_written(name, options)._check_required(numbers, ("stages", name, "require"))

    def _check_required(self, numbers: Collection[str], path: tuple[str, ...]) -> None:
        """Raises RecipeError for a number that the report will not have."""
        empty = {"rewards": {name: _of_reward([], [], []) for name in self.rewards}}
        agreements = [{"rewards": list(pair), "share": 0.0} for pair in combinations(self.rewards, 2)]
        known = reward_numbers.metrics({**empty, "agreement": agreements})
        further = [f"rewards/{name}/" for name in self.rewards]  # what scoring leaves
        further += [f"{name}/subset/" for name in self.rewards] if self.subset else []
        further += [f"rounds/{name}/{reward}/" for name in self.rounds for reward in self.rewards]
        for name in numbers:
            if name not in known and not name.startswith(tuple(further)):
                message = f"there will be no such number{suggest(name, known)} (but {', '.join(known)})"
                raise RecipeError(message, (*path, name))

    def check(self, step: Step) -> None:
        if not self.rewards:
            raise RecipeError("name at least one reward", (*step.path, "rewards"))
        if self.batch_size < 1:
            raise RecipeError(f"must be at least 1, got {self.batch_size}", (*step.path, "batch_size"))
        if self.gold is not None and self.gold not in self.rewards:
            hint = f"{suggest(self.gold, self.rewards)} (there are: {', '.join(self.rewards)})"
            raise RecipeError(f"{self.gold!r} is none of the rewards{hint}", (*step.path, "gold"))
        if self.gold is not None and not self.rounds:
            message = "is what `rounds` are held against, and there are none: `data` is held against its labels"
            raise RecipeError(message, (*step.path, "gold"))
        super().check(step)

    def _of_policy(self, rows: Dataset, scores: Mapping[str, Scores]) -> dict[str, Any]:
        """The numbers of every reward on the completions of a policy."""
        lengths, prompts = [len(text(completion)) for completion in rows["completion"]], rows["prompt_index"][:]
        gold = scores[self.gold] if self.gold else None
        return {
            name: reward_rounds.of_policy(scores[name], lengths, prompts, None if name == self.gold else gold)
            for name in scores
        }

    def work(self, known: Known) -> Work:
        rows, judges = known.rows("data"), known.rewards(self.rewards)
        asked = [(rows.shaped(1), 2 * rows.count)]
        asked += [(said, said.count) for said in (known.rows("rounds", block) for block in self.rounds.values())]
        passes = tuple(judged(judge.model, shape, count) for judge in judges for shape, count in asked)
        handled = sum(count for _, count in asked) * len(self.rewards)
        return Work("models" if judges else "rows", tuple(judges[:1]), passes, handled=handled)

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState
        from accelerate.utils import release_memory

        from trimtab.pipelines.scoring import journal

        pairs = counting.rows(self.data, step, "data")
        if self.subset is not None and self.subset not in pairs.column_names:
            message = f"the data has no column {self.subset!r} (columns: {', '.join(pairs.column_names)})"
            raise RecipeError(message, (*step.path, "subset"))
        options = step.identity["options"]
        answers, of = _answers(pairs), {"answers of": options["data"]}
        said = {name: counting.rows(block, step, "rounds", name) for name, block in self.rounds.items()}
        report: dict[str, Any] = {"pairs": len(pairs), "rewards": {}}
        metrics: Metrics = {}
        scores: dict[str, Scores] = {}
        of_policies: dict[str, dict[str, Scores]] = {policy: {} for policy in said}
        for name, block in self.rewards.items():
            reward = schema.load_reward(cut(block).reward, (*step.path, "rewards", name))
            scored = journal.score(step, name, reward, answers, self.batch_size, of=of)
            on_failure = block.get("on_failure", "stop")
            scores[name] = scored.settled(on_failure, answers["pair"][:])
            metrics |= scored.summary(name, scores[name])
            for policy, rows in said.items():
                scored = journal.score(step, name, reward, rows, self.batch_size, of=options["rounds"][policy])
                of_policies[policy][name] = scored.settled(on_failure, rows["prompt_index"][:])
            del reward, scored
            release_memory()
        lengths = [len(text(answer)) for answer in answers["completion"]]
        subsets = pairs[self.subset][:] if self.subset else []
        for name, of_reward in scores.items():
            report["rewards"][name] = _of_reward(of_reward, lengths, subsets)
        report["agreement"] = _agreements(scores)
        report |= {"gold": self.gold, "rounds": {}}
        for policy, rows in said.items():
            report["rounds"][policy] = self._of_policy(rows, of_policies[policy])
        numbers = reward_numbers.metrics(report)
        tracking.table("rewards", reward_numbers.of_rewards(report, numbers))
        tracking.table("rounds", list(reward_numbers.of_rounds(report)))
        if PartialState().is_main_process:
            (step.output / "reward_report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False))
            by_prompt.write(step.output, _by_prompt(scores, [text(prompt) for prompt in answers["prompt"][::2]]))
        return metrics | numbers


def _answers(pairs: Dataset) -> Dataset:
    """A row for each answer: that of the better one, and behind it that of the worse one."""
    from datasets import Dataset
    from trl import maybe_extract_prompt

    columns = [name for name in pairs.column_names if name not in ("prompt", "chosen", "rejected")]
    rows = []
    for number, row in enumerate(grouping.records(pairs, pairs.column_names)):
        pair = maybe_extract_prompt({key: row[key] for key in ("prompt", "chosen", "rejected") if key in row})
        kept = {name: row[name] for name in columns} | {"prompt": pair["prompt"], "pair": number}
        rows.append({**kept, "completion": pair["chosen"], "other": pair["rejected"]})
        rows.append({**kept, "completion": pair["rejected"], "other": pair["chosen"]})
    return Dataset.from_list(rows)


def _of_reward(scores: Scores, lengths: Sequence[int], subsets: Sequence[Any]) -> dict[str, Any]:
    """What the report says of one reward; `scores` and `lengths` are of the answers, `subsets` of the pairs."""
    gaps = _gaps(scores)
    there = [pair for pair, gap in enumerate(gaps) if gap is not None]
    given = [gap for gap in gaps if gap is not None]
    longer = [float(lengths[2 * pair] - lengths[2 * pair + 1]) for pair in there]
    of_subsets = {}
    pairs_of = defaultdict(list)
    for pair, subset in enumerate(subsets):
        pairs_of[subset].append(pair)
    for subset, rows in pairs_of.items():
        of_subset = [gap for pair in rows if (gap := gaps[pair]) is not None]
        values = [score for pair in rows for score in scores[2 * pair : 2 * pair + 2]]
        of_subsets[str(subset)] = {"accuracy": reward_quality.accuracy(of_subset), **_spread(values)}
    return {
        "accuracy": reward_quality.accuracy(given),
        "unscored": len(gaps) - len(given),
        "calibration": reward_quality.calibration(given),
        "length": reward_quality.length_bias(given, longer),
        "subsets": of_subsets,
        **_spread(scores),
    }


def _gaps(scores: Scores) -> list[float | None]:
    """The better answer's score minus the worse one's, pair by pair; None where one of them has no score."""
    pairs = zip(scores[::2], scores[1::2], strict=True)
    return [None if better is None or worse is None else better - worse for better, worse in pairs]


def _spread(scores: Scores) -> dict[str, float]:
    """Offset and scale of a reward: the mean and the standard deviation of its scores."""
    import numpy as np

    given = [score for score in scores if score is not None]
    return {"mean": float(np.mean(given)), "std": float(np.std(given))} if given else {}


def _agreements(scores: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """Of every two rewards, the share of pairs that they order alike."""
    gaps = {name: _gaps(of_reward) for name, of_reward in scores.items()}
    agreements = []
    for one, other in combinations(gaps, 2):
        both = [pair for pair in zip(gaps[one], gaps[other], strict=True) if None not in pair]
        share = reward_quality.agreement([ours for ours, _ in both], [theirs for _, theirs in both])  # type: ignore[misc]
        agreements.append({"rewards": [one, other], "share": share, "n": len(both)})
    return agreements


def _by_prompt(scores: Mapping[str, Scores], prompts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Each reward's accuracy on the pairs of each prompt."""
    names = by_prompt.identifiers(prompts)
    values: dict[str, dict[str, float]] = {}
    for reward, of_reward in scores.items():
        of_prompt: dict[str, list[float]] = {}
        for name, gap in zip(names, _gaps(of_reward), strict=True):
            if gap is not None:
                of_prompt.setdefault(name, []).append(0.5 if gap == 0 else float(gap > 0))
        values[f"{reward}/accuracy/mean"] = {name: statistics.mean_stderr(some)[0] for name, some in of_prompt.items()}
    return values
