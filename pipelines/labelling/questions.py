"""What people are asked: a prompt and two answers or more, with a name that its content gives it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from trimtab.pipelines.planning.files import fingerprint
from trimtab.rewards import text

TEXT = "prompt"  # the role of a prompt that is no conversation


@dataclass(frozen=True)
class Question:
    """`prompt` are (role, text) turns. `gold` is the place of the answer that is known to be the best, if one is."""

    id: str
    prompt: list[tuple[str, str]]
    answers: list[str]
    gold: int | None = None

    @property
    def spoken(self) -> Any:
        """The prompt as a reward takes it: a text, or messages."""
        if [role for role, _ in self.prompt] == [TEXT]:
            return self.prompt[0][1]
        return [{"role": role, "content": words} for role, words in self.prompt]


@dataclass(frozen=True)
class Sheet:
    """All questions of a step, and how they are asked: of each the best `ranked` answers are named, by `raters`.

    A rater counts who has answered at least the share `gold_least` of the questions with known answers right.
    """

    title: str
    instructions: str
    ranked: int
    raters: int
    reasons: bool
    gold_least: float
    questions: list[Question]

    @property
    def key(self) -> str:
        """What stands for the questions, however many raters are asked, and with whatever words."""
        return fingerprint([self.ranked, *sorted(question.id for question in self.questions)])


def ask(prompt: Any, answers: Sequence[Any], gold: int | None = None) -> Question:
    """The question of a prompt and answers, texts or messages; the same ones are the same question everywhere."""
    turns, texts = _turns(prompt), [text(answer) for answer in answers]
    return Question(fingerprint([turns, texts]) + fingerprint([texts, turns]), turns, texts, gold)


def mixed(every: Iterable[Question]) -> list[Question]:
    """Each question once, in an order that they give themselves."""
    different = list({question.id: question for question in every}.values())
    Random(" ".join(sorted(question.id for question in different))).shuffle(different)
    return different


def _turns(prompt: Any) -> list[tuple[str, str]]:
    if isinstance(prompt, str):
        return [(TEXT, prompt)]
    return [(str(message["role"]), text([message])) for message in prompt]
