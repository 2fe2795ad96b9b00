"""Kind `equal_tokens`: of a policy's samples, the best of as many as come to the tokens that other answers have taken.

    equal_tokens: {completions: $more-score, budget: $reflect, reward: quality}

The control of whatever spends tokens on one answer, as `reflect` does. Each answer in `budget` is set against samples
of the same prompt, in order and as many as its `spent` tokens come to, at least one; of those the one that `reward`
scores highest is kept, or, without a reward, the first that says what most of them say (a vote, as in `best_of`).
Where a prompt has K samples and G answers, each answer has K / G samples of its own; `short` is the share of answers
that have spent more than all of these. Rows are completions with their scores, and `spent`, the tokens of the samples
that were chosen among; `samples` is their mean number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.data import counting, grouping, promises
from trimtab.pipelines.data.forms import DRAWN, SAMPLED, SCORED, Data
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import _answers, text

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.planning.recipe import Step

Row = dict[str, Any]


@dataclass(kw_only=True)
class EqualTokens(Stage):
    """`reward` is one of the scores of `completions`."""

    completions: Annotated[Data, SCORED.where("sample_index", "completion_ids")]
    budget: Annotated[Data, SAMPLED.where("spent")]
    reward: str | None = None

    writes: ClassVar[tuple[str, ...]] = (*DRAWN, "scores", "spent")
    shows: ClassVar[Shows] = Shows(results=("samples", "short"))

    def check(self, step: Step) -> None:
        self._known(promises.of(self.completions, step).rewards or (), step)
        super().check(step)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        made = promises.of(self.completions, step)
        return Promise(answers=promises.of(self.budget, step).answers, asked=made.asked, rewards=made.rewards)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        rows = counting.rows(self.completions, step, "completions")
        self._known(list(rows.features["scores"]), step)
        answers = counting.rows(self.budget, step, "budget")
        counts = Counter[str]()
        written = write_rows(step, self._chosen(_by_prompt(rows), _by_prompt(answers), counts, step))
        return {"rows": written, "samples": counts["drawn"] / written, "short": counts["short"] / written}

    def _chosen(
        self, samples: Iterator[list[Row]], answers: Iterator[list[Row]], counts: Counter[str], step: Step
    ) -> Iterator[Row]:
        """The sample that is kept for each answer; what was drawn for them, and fell short, is counted on the way."""
        for group in answers:
            number = group[0]["prompt_index"]
            pool = next((drawn for drawn in samples if drawn[0]["prompt_index"] >= number), [])
            if not pool or [number, text(group[0]["prompt"])] != [pool[0]["prompt_index"], text(pool[0]["prompt"])]:
                raise RecipeError("are of other prompts than the budget's", (*step.path, "completions"))
            if len(pool) < len(group):
                message = f"has {len(pool)} samples of a prompt to which `budget` has {len(group)} answers"
                raise RecipeError(f"{message}: sample as many or more", (*step.path, "completions"))
            for place, answer in enumerate(group):
                of_answer = pool[place :: len(group)]
                taken = within(of_answer, answer["spent"])
                spent = sum(len(row["completion_ids"]) for row in taken)
                counts["drawn"] += len(taken)
                counts["short"] += len(taken) == len(of_answer) and spent < answer["spent"]
                yield {**self._best(taken), "sample_index": answer["sample_index"], "spent": spent}

    def _known(self, rewards: Sequence[str], step: Step) -> None:
        """Raises RecipeError for a reward that is none of the scores, where these are known."""
        if self.reward is not None and rewards and self.reward not in rewards:
            message = f"no reward {self.reward!r} in the scores{suggest(self.reward, rewards)}"
            raise RecipeError(f"{message} (there are: {', '.join(rewards)})", (*step.path, "reward"))

    def _best(self, samples: Sequence[Row]) -> Row:
        """The sample that is scored highest, or says what most say; the first of several."""
        if self.reward is not None:
            scored = [row for row in samples if row["scores"][self.reward] is not None]
            return max(scored or samples, key=lambda row: row["scores"][self.reward] or 0.0)
        votes = Counter(vote for row in samples if (vote := _answers.vote(text(row["completion"]))) is not None)
        return max(samples, key=lambda row: votes[_answers.vote(text(row["completion"]))])


def within(samples: Sequence[Row], budget: int) -> list[Row]:
    """The first samples, as many as come nearest to so many tokens; one at least."""
    taken, spent = [samples[0]], len(samples[0]["completion_ids"])
    for row in samples[1:]:
        more = spent + len(row["completion_ids"])
        if more - budget > budget - spent:
            break
        taken.append(row)
        spent = more
    return taken


def _by_prompt(rows: Dataset) -> Iterator[list[Row]]:
    """The rows of each prompt, by the prompts' numbers, of which one is in memory at a time."""
    import numpy as np

    numbers = grouping.column(rows, "prompt_index").to_numpy()
    return grouping.sorted_by(numbers, np.arange(len(rows))).rows(rows, rows.column_names)
