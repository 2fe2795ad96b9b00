"""People as judges of pairs of answers, as a recipe names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.algorithms import rankings
from trimtab.pipelines.labelling import judgements, questions, waiting
from trimtab.pipelines.labelling.questions import Sheet
from trimtab.pipelines.planning.errors import RecipeError

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

PEOPLE = "people"  # what their score is called


@dataclass(kw_only=True)
class People:
    """`raters` people say of each two different answers which is better, in the page of `label`.

    `labels` are files of answers: those that the page saves, or exports of Argilla or Label Studio.
    """

    raters: int = 1
    instructions: str = "Which answer is better?"
    labels: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.raters < 1:
            raise ValueError(f"raters must be at least 1, got {self.raters}")

    def check(self, place: Sequence[str]) -> None:
        """Raises RecipeError for a file of answers that is not there."""
        for number, file in enumerate(self.labels):
            if not Path(file).expanduser().is_file():
                raise RecipeError(f"no such file: {file}", (*place, "labels", str(number)))

    def judged(
        self, step: Step, prompts: Sequence[Any], ours: Sequence[Any], theirs: Sequence[Any]
    ) -> tuple[list[float | None], dict[str, float]]:
        """The share of raters who prefer the first answer of each two, a tie being one half, and how they agree.

        None where all have skipped. Raises Waiting until they have answered. Every rank calls it.
        """
        asked = [questions.ask(prompt, pair) for prompt, *pair in zip(prompts, ours, theirs, strict=True)]
        title = f"{step.recipe} {step.name}".strip()
        sheet = Sheet(title, self.instructions, 1, self.raters, False, 0.0, questions.mixed(asked))
        given = waiting.answers(sheet, step, self.labels)
        by_question: dict[str, list[judgements.Judgement]] = {question.id: [] for question in asked}
        for one in given:
            by_question[one.question].append(one)
        shares: list[float | None] = []
        for question in asked:
            about = by_question[question.id]
            orders = [one.order for one in about if one.verdict == "ranked"]
            shares.append(rankings.shares(orders, sum(one.verdict == "tie" for one in about), 2)[0])
        return shares, judgements.summary(given, {question.id: question for question in sheet.questions})
