"""Several policies in order, by what people say of their answers to the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.algorithms import rankings
from trimtab.pipelines.labelling import questions, waiting
from trimtab.pipelines.labelling.questions import Question, Sheet
from trimtab.rewards import text

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

ALIKE = 0.5  # the share of comparisons that everyone wins where all say the same, or nobody says which is better


def shares(
    step: Step, title: str, instructions: str, raters: int, ranked: int, prompts: Sequence[Any], said: Sequence[Any]
) -> list[float]:
    """The share of comparisons that each policy wins, the mean over prompts; `said` has the answers of each policy.

    Answers that are the same are shown once. People name the best `ranked`. Raises Waiting until they have answered.
    """
    asked: list[Question | None] = []
    places: list[list[int]] = []
    for prompt, answers in zip(prompts, zip(*said, strict=True), strict=True):
        texts = [text(answer) for answer in answers]
        different = list(dict.fromkeys(texts))
        asked.append(questions.ask(prompt, different) if len(different) > 1 else None)
        places.append([different.index(one) for one in texts])
    shown = questions.mixed([question for question in asked if question is not None])
    if not shown:
        return [ALIKE] * len(said)
    given = waiting.answers(Sheet(title, instructions, ranked, raters, False, 0.0, shown), step)
    won = dict.fromkeys(range(len(said)), 0.0)
    for question, of_prompt in zip(asked, places, strict=True):
        about = [one for one in given if question is not None and one.question == question.id]
        orders = [one.order for one in about if one.verdict == "ranked"]
        ties = sum(one.verdict == "tie" for one in about)
        wins = rankings.shares(orders, ties, len(question.answers)) if question is not None else [None] * len(said)
        for policy, place in enumerate(of_prompt):
            share = wins[place]
            won[policy] += ALIKE if share is None else share
    return [total / len(asked) for total in won.values()]
