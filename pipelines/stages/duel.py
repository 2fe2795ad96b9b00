"""Kind `duel`: completions against others of the same prompts, by a judge of pairs.

    duel:                                    # the completions of one policy against those of another
      completions: $dpo-sample
      opponent: $sft-sample
      rewards: {better: {kind: judge, mode: pairwise, against: other, model: Qwen/Qwen3-32B, url: ...}}
    duel: {completions: $sample, rewards: {better: {...}}}    # each against the others of its prompt: preferences
    pair: {completions: $duel, reward: better}                # that `pair` then makes of them
    duel: {completions: $dpo-sample, opponent: $sft-sample, people: {raters: 2}}      # people say which is better

With `people` the step waits for them as `label` does (docs/people.md): `trimtab label RUN` asks, and then the same
`trimtab run` goes on. What they say is the score `people`, the share of raters who prefer an answer. Their metrics are
also those of `label`, such as `people/agreement/krippendorff`.

The judge is given the other answer in the column `other`, and its score of a duel is 1 for a win, 0.5 for a tie and 0
for a loss. Against an `opponent`, a completion meets the one with its `sample_index`; without, the next `rounds` ones
of its prompt in a circle (all when left out), once each. The dataset is that of the completions with the column
`scores`: the mean of a completion's duels.

Metrics of each judge: `wins` against the opponent with its standard error over prompts, and, as shares of the duels,
`ties`, `equal` (the same text, which is a tie that nobody is asked about) and `unjudged` (abstentions and failures,
which are in no other number). `longer_wins` is the share of judged duels between different lengths that the longer
answer wins: 0.5 where length does not matter. `rewards/NAME/flipped/mean` is the share of duels in which the judge
`kind: judge` preferred the same place in both orders, a tie then, and `preferred_first` how often it was the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.algorithms import duels, statistics
from trimtab.pipelines.data import counting, grouping, promises
from trimtab.pipelines.data.forms import DRAWN, SAMPLED, Data
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.passes import judged
from trimtab.pipelines.forecasting.work import Rows, Work
from trimtab.pipelines.labelling.people import PEOPLE, People
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.reward_blocks import RewardBlock, cut
from trimtab.pipelines.reporting import by_prompt
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.scoring.scored_rows import with_scores
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature

Pairs = list[tuple[int, int]]  # the row of a completion, and that of the one it meets
Outcomes = Sequence[float | None]


@dataclass(kw_only=True)
class Duel(Stage):
    """`batch_size` is duels per call of a judge: what a killed run may have to ask again."""

    completions: Annotated[Data, SAMPLED]
    opponent: Annotated[Data | None, SAMPLED] = None
    rewards: dict[str, RewardBlock] = field(default_factory=dict)
    people: People | None = None
    rounds: int | None = None
    batch_size: int = 256

    neutral: ClassVar[tuple[str, ...]] = ("batch_size",)
    neutral_when_empty: ClassVar[tuple[str, ...]] = ("people",)
    writes: ClassVar[tuple[str, ...]] = (*DRAWN, "scores")
    shows: ClassVar[Shows] = Shows(results=("*/wins/mean", "*/ties"), compares=("*/wins/mean",))

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        small = super().small(block, miniature)
        if not block.get("people"):
            return small
        nobody = {} if block.get("rewards") else {"rewards": {PEOPLE: {"kind": "pattern", "regex": "a"}}}
        return {**small, **nobody, "people": None}  # in a shrunk run nobody is asked

    def check(self, step: Step) -> None:
        if not self.rewards and self.people is None:
            raise RecipeError("name at least one judge of pairs, or `people: {}`", (*step.path, "rewards"))
        if self.people is not None:
            if PEOPLE in self.rewards:
                raise RecipeError("is what people's score is called: give this another name", (*step.path, "rewards"))
            self.people.check((*step.path, "people"))
        for key in ("rounds", "batch_size"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise RecipeError(f"must be at least 1, got {value}", (*step.path, key))
        if self.opponent and self.rounds:
            raise RecipeError("are those of one policy's completions: leave it out", (*step.path, "rounds"))
        answers = promises.of(self.completions, step).answers
        if answers == 1 and not self.opponent:
            message = "every prompt will have one answer, which meets nobody: raise `num_generations`"
            raise RecipeError(f"{message}, or name an `opponent`", (*step.path, "completions"))
        super().check(step)

    def work(self, known: Known) -> Work:
        rows, judges = known.rows("completions"), known.rewards(self.rewards)
        count = rows.count
        if not self.opponent:
            answers = rows.count / max(1, rows.prompts)
            count = round(rows.count * min(self.rounds or answers, (answers - 1) / 2))
        passes = tuple(judged(judge.model, rows, 2 * count) for judge in judges)
        handled = count * len(self.rewards)
        return Work("models" if judges else "rows", tuple(judges[:1]), passes, handled=handled)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        judges = (*self.rewards, *([PEOPLE] if self.people is not None else []))
        return replace(promises.of(self.completions, step), rewards=judges)

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        return known.rows("completions")

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        from trimtab.pipelines.data.writing import write_rows

        rows = counting.rows(self.completions, step, "completions")
        others = counting.rows(self.opponent, step, "opponent") if self.opponent else rows
        pairs = self._against(rows, others, step) if self.opponent else self._among(rows)
        said, replied = ([text(answer) for answer in table["completion"]] for table in (rows, others))
        asked = [pair for pair in pairs if said[pair[0]] != replied[pair[1]]]
        if not asked and not self.opponent:
            message = "no two answers of a prompt differ: sample more of them, or at a higher temperature"
            raise RecipeError(message, (*step.path, "completions"))
        question = _question(rows, others, asked)
        gaps = [len(said[one]) - len(replied[other]) for one, other in pairs]
        metrics: Metrics = {"duels": len(pairs), "equal": 1 - len(asked) / len(pairs)}
        scores: dict[str, Outcomes] = {}
        means: dict[str, dict[str, float]] = {}
        for name in (*self.rewards, *([PEOPLE] if self.people is not None else [])):
            answered, about = self._judged(name, question, step) if asked else ([], {})
            outcomes = duels.with_ties(pairs, asked, answered)
            metrics |= about | {f"{name}/{key}": value for key, value in duels.summary(outcomes, gaps).items()}
            scores[name] = duels.shares(pairs, outcomes, len(rows), is_mutual=not self.opponent)
            if self.opponent:
                wins = statistics.grouped(scores[name], rows["prompt_index"][:])
                metrics |= {f"{name}/wins/{key}": value for key, value in wins.items()}
                means[f"{name}/wins/mean"] = _by_prompt(rows, scores[name])
        write_rows(step, with_scores(rows, scores))
        if means and PartialState().is_main_process:
            by_prompt.write(step.output, means)
        return metrics

    def _judged(self, name: str, question: Dataset, step: Step) -> tuple[Outcomes, Metrics]:
        """What a judge, or people, say of every duel that they are asked about, and metrics of that."""
        if self.people is not None and name == PEOPLE:
            shares, about = self.people.judged(step, question["prompt"], question["completion"], question["other"])
            return shares, {f"{PEOPLE}/{key}": value for key, value in about.items()}
        from accelerate.utils import release_memory

        from trimtab.pipelines.scoring import journal

        block = self.rewards[name]
        judge = schema.load_reward(cut(block).reward, (*step.path, "rewards", name))
        of = {key: step.identity["options"].get(key) for key in ("completions", "opponent", "rounds")}
        scored = journal.score(step, name, judge, question, self.batch_size, of={"duels": of})
        del judge
        release_memory()
        outcomes = scored.settled(block.get("on_failure", "stop"), question["prompt_index"][:])
        _check_range(outcomes, (*step.path, "rewards", name))
        return outcomes, scored.summary(name, outcomes)

    def _against(self, rows: Dataset, others: Dataset, step: Step) -> Pairs:
        """Every completion with the opponent's of the same prompt and number."""
        theirs = {place: number for number, place in enumerate(_places(others))}
        pairs: Pairs = []
        for number, place in enumerate(_places(rows)):
            if place not in theirs:
                message = f"has no completion {place[1]} of prompt {place[0]} ({place[2][:60]!r}): sample both alike"
                raise RecipeError(message, (*step.path, "opponent"))
            pairs.append((number, theirs[place]))
        return pairs

    def _among(self, rows: Dataset) -> Pairs:
        """Every completion with others of its prompt."""
        groups = grouping.by_column(rows, "prompt_index")
        pairs: Pairs = []
        start = 0
        for end in groups.ends.tolist():
            pairs += duels.circle(groups.order[start:end].tolist(), self.rounds)
            start = end
        return pairs


def _places(rows: Dataset) -> Iterator[tuple[int, int, str]]:
    """The number of each row's prompt, that of its completion, and the prompt's text."""
    return zip(rows["prompt_index"], rows["sample_index"], map(text, rows["prompt"]), strict=True)


def _question(rows: Dataset, others: Dataset, pairs: Pairs) -> Dataset:
    """The rows that the judges are asked about: completions beside the `other` of each."""
    columns = [name for name in rows.column_names if name not in ("scores", "other")]
    ours = rows.select_columns(columns).select([one for one, _ in pairs])
    theirs = others["completion"][:]
    return ours.add_column("other", [theirs[other] for _, other in pairs])


def _check_range(answered: Outcomes, place: Sequence[str]) -> None:
    """Raises RecipeError for a score that is of no duel."""
    beyond = next((score for score in answered if score is not None and not 0 <= score <= 1), None)
    if beyond is not None:
        message = f"has given {beyond:g}, and a duel is won by 1, lost by 0: take a judge with `mode: pairwise`"
        raise RecipeError(message, place)


def _by_prompt(rows: Dataset, scores: Outcomes) -> dict[str, float]:
    """The share of duels won by the completions of each prompt."""
    asked = dict(zip(rows["prompt_index"], map(text, rows["prompt"]), strict=True))
    names = dict(zip(asked, by_prompt.identifiers(asked.values()), strict=True))
    given: dict[str, list[float]] = {}
    for index, score in zip(rows["prompt_index"], scores, strict=True):
        if score is not None:
            given.setdefault(names[index], []).append(score)
    return {name: sum(some) / len(some) for name, some in given.items()}
