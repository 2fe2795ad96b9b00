"""Kind `label`: people say which of a prompt's answers is the best, in a page; the chain waits for them.

    label: {completions: $sample}                                  # the first two different answers of each prompt
    label: {completions: $query, raters: 2, gold: checks.jsonl, gold_least: 0.7}
    label: {completions: $sample, answers: 4, ranked: 4}           # four side by side, put in order
    label: {completions: pairs.jsonl, labels: [ann.json, argilla.json]}       # answers from files, of other tools too
    label: {completions: $sample, stand_in: {kind: gold}}          # a reward in the place of people: to try a recipe

    pair: {completions: $label, reward: people}                    # or curate: {completions: $label, reward: people}

The step asks as soon as its completions are there, and ends the run with a sentence that says how: `trimtab label
RUN` serves the page on this machine, and the page itself is a file that can be sent to somebody. The same `trimtab
run` goes on when each question has answers of `raters` people. Answers are kept by what was asked, so a step that asks
the same again, with more raters or other instructions, begins with them; `prune` leaves them alone.

The dataset is that of the completions that were shown, with the score `people`: the share of its comparisons that an
answer has won, over all raters, a tie being one half, and null where everyone has skipped. Preference rows and
rankings may be asked about, too: they become two or more completions of a prompt, and `as_labelled` is the share of
people's choices that are the data's own.

Questions with known answers (`gold`, preference rows whose better answer nobody can miss) are mixed in; raters who
answer fewer than `gold_least` of them right are left out. Metrics: `agreement/krippendorff` (nominal alpha) and
`agreement/cohen` (kappa of two raters, the mean) are 1 where all agree and 0 where they agree as often as chance;
`position/first` is the share of choices that took what was shown first, with its 95% interval, beside `position/even`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.algorithms import rankings
from trimtab.pipelines.data import counting, grouping, loading, promises
from trimtab.pipelines.data.forms import COMPARED, DRAWN, PREFERENCE, Data, said
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.work import Rows
from trimtab.pipelines.labelling import judgements, questions, waiting
from trimtab.pipelines.labelling.judgements import Judgement
from trimtab.pipelines.labelling.people import PEOPLE
from trimtab.pipelines.labelling.questions import Question, Sheet
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.reward_blocks import RewardBlock, cut
from trimtab.pipelines.recording import locks
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import RewardFailure, outcomes, text

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature

MOST = 9  # answers of a question: the keys of a keyboard


@dataclass(kw_only=True)
class Label(Stage):
    """`answers` of a prompt are shown together, at most, and the best `ranked` of them are named.

    `labels` are files of answers: those that the page saves, or exports of Argilla or Label Studio. With `reasons` a
    rater may write one.
    """

    completions: Annotated[Data, COMPARED]
    answers: int = 2
    ranked: int = 1
    raters: int = 1
    instructions: str = "Which answer is better?"
    reasons: bool = False
    gold: Annotated[Data | None, PREFERENCE] = None
    gold_least: float = 0.0
    labels: list[str] = field(default_factory=list)
    stand_in: RewardBlock | None = None

    writes: ClassVar[tuple[str, ...]] = (*DRAWN, "scores")
    shows: ClassVar[Shows] = Shows(results=("judgements", "agreement/krippendorff"), section="labels")

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        nobody = {"kind": "length", "target": 5, "unit": "characters"}  # in a shrunk run nobody is asked
        return {"stand_in": nobody, **super().small(block, miniature), "labels": [], "gold_least": 0.0}

    def check(self, step: Step) -> None:
        limits = {
            "answers": (2 <= self.answers <= MOST, f"from 2 to {MOST}"),
            "ranked": (1 <= self.ranked <= self.answers, "at least 1, and at most `answers`"),
            "raters": (self.raters >= 1, "at least 1"),
            "gold_least": (0 <= self.gold_least <= 1, "a share from 0 to 1"),
        }
        for key, (right, words) in limits.items():
            if not right:
                raise RecipeError(f"must be {words}, got {getattr(self, key)}", (*step.path, key))
        if self.gold_least and self.gold is None:
            raise RecipeError("is a share of the questions in `gold`, and there are none", (*step.path, "gold_least"))
        for number, file in enumerate(self.labels):
            if not Path(file).expanduser().is_file():
                raise RecipeError(f"no such file: {file}", (*step.path, "labels", str(number)))
        if promises.of(self.completions, step).answers == 1:
            message = "every prompt will have one answer, and a question needs two: raise `num_generations`"
            raise RecipeError(message, (*step.path, "completions"))
        super().check(step)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        columns = promises.of(self.completions, step).columns
        return Promise(columns=None if columns is None else (*self.writes, *columns))

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        return known.rows("completions")

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        from trimtab.pipelines.data.writing import write_rows

        groups = list(_groups(counting.rows(self.completions, step, "completions"), self.answers))
        if not groups:
            message = "no prompt has two different answers: sample more of them, or at a higher temperature"
            raise RecipeError(message, (*step.path, "completions"))
        asked = [questions.ask(group[0]["prompt"], [row["completion"] for row in group]) for group in groups]
        sheet = self._sheet(step, asked)
        everything = self._answers(step, sheet)
        by_id = {question.id: question for question in sheet.questions}
        scores = _scores(everything, by_id)
        write_rows(step, _scored(groups, asked, scores))
        if PartialState().is_main_process:
            raters = judgements.by_rater(everything, by_id)
            record = {"raters": raters, "judgements": [one.values() for one in everything]}
            (step.output / "labels.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        metrics: Metrics = {"questions": len(asked), **judgements.summary(everything, by_id)}
        chosen = [one.order[0] == 0 for one in everything if one.order and by_id[one.question].gold is None]
        if "chosen" in groups[0][0] and chosen:
            metrics["as_labelled"] = sum(chosen) / len(chosen)
        return metrics

    def _sheet(self, step: Step, asked: list[Question]) -> Sheet:
        """The questions of the data and the known ones, in an order that they give themselves."""
        known = loading.load(self.gold, (*step.path, "gold")) if self.gold else ()
        gold = [questions.ask(row["prompt"], [row["chosen"], row["rejected"]], gold=0) for row in known]
        every = questions.mixed((*asked, *gold))
        title = f"{step.recipe} {step.name}".strip()
        return Sheet(title, self.instructions, self.ranked, self.raters, self.reasons, self.gold_least, every)

    def _answers(self, step: Step, sheet: Sheet) -> list[Judgement]:
        """The judgements that count. Raises Waiting until they are there."""
        if self.stand_in:
            block = self.stand_in
            return locks.of_main(lambda: list(self._stand_in(block, sheet, step)))
        return waiting.answers(sheet, step, self.labels)

    def _stand_in(self, block: Any, sheet: Sheet, step: Step) -> Iterator[Judgement]:
        """What a reward says in the place of people: its best answers, or a tie where none is above another."""
        place = (*step.path, "stand_in")
        reward = schema.load_reward(cut(block).reward, place)
        prompts = [question.spoken for question in sheet.questions for _ in question.answers]
        answers = [said("assistant", answer) for question in sheet.questions for answer in question.answers]
        scores = iter(outcomes(reward, prompts, answers))
        for question in sheet.questions:
            of_question = [next(scores) for _ in question.answers]
            for score in of_question:
                if isinstance(score, RewardFailure):
                    raise score
            numbers = [score for score in of_question if isinstance(score, float)]
            if len(numbers) < len(of_question):
                yield Judgement(question.id, "stand-in", "skip")
            elif max(numbers) == min(numbers):
                yield Judgement(question.id, "stand-in", "tie")
            else:
                order = sorted(range(len(numbers)), key=lambda place: -numbers[place])
                yield Judgement(question.id, "stand-in", "ranked", tuple(order[: self.ranked]))


def _groups(rows: Dataset, most: int) -> Iterator[list[dict[str, Any]]]:
    """The rows of completions of each question: the first different ones of a prompt, two at least."""
    columns = rows.column_names
    if "completion" in columns:
        groups = grouping.by_column(rows, "prompt_index").rows(rows, columns)
    else:
        groups = (list(_spread(number, row)) for number, row in enumerate(grouping.records(rows, columns)))
    for group in groups:
        different = list({text(row["completion"]): row for row in reversed(group)}.values())[::-1][:most]
        if len(different) > 1:
            yield different


def _spread(number: int, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The completions of a preference or a ranking, the better ones first."""
    answers = [row["chosen"], row["rejected"]] if "completions" not in row else row["completions"]
    of_prompt = {key: value for key, value in row.items() if key not in ("completions", "completion_scores", "scores")}
    for place, answer in enumerate(answers):
        yield {**of_prompt, "completion": answer, "prompt_index": number, "sample_index": place}


def _scores(given: Sequence[Judgement], by_id: Mapping[str, Question]) -> dict[str, list[float | None]]:
    """The shares of comparisons that the answers of each question have won."""
    orders: dict[str, list[tuple[int, ...]]] = {question: [] for question in by_id}
    ties = dict.fromkeys(by_id, 0)
    for one in given:
        if one.verdict == "ranked":
            orders[one.question].append(one.order)
        ties[one.question] += one.verdict == "tie"
    return {
        question: rankings.shares(orders[question], ties[question], len(asked.answers))
        for question, asked in by_id.items()
    }


def _scored(
    groups: Sequence[Sequence[dict[str, Any]]], asked: Sequence[Question], scores: Mapping[str, Sequence[float | None]]
) -> Iterator[dict[str, Any]]:
    for group, question in zip(groups, asked, strict=True):
        for row, score in zip(group, scores[question.id], strict=True):
            kept = {key: value for key, value in row.items() if key not in ("chosen", "rejected")}
            yield {**kept, "scores": {**(row.get("scores") or {}), PEOPLE: score}}
