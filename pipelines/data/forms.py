"""The forms of data: which columns a stage reads, declared once, in the type of its field.

    data: Annotated[Data, PREFERENCE]

A field's form is what its rows are checked by before anything runs, what the documentation says of the key, and
what a shrunk run makes rows of. What `data:` in a recipe may be stands in `pipelines/data/blocks.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from trimtab.pipelines.data.blocks import DataMixture, mixture
from trimtab.pipelines.planning import kinds

Data = Annotated[DataMixture, mixture]


@dataclass(frozen=True)
class Form:
    """Rows of a kind. `columns` are the sets of columns of which a dataset needs one, the first one that it has.

    `audit` names what else is looked at before a run: "prompts" (a template, and room for them), "tokens" (something
    to learn and an end to stop at) and "thumbs" (labels that are true or false). `example(question, number)` is a row
    of it, for shrunk runs and tests; rows without one are not written by hand, but left by a stage (see `makers`).
    """

    name: str
    columns: tuple[tuple[str, ...], ...]
    example: Callable[[str, int], dict[str, Any]] | None = None
    audit: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return " or ".join(" + ".join(f"`{column}`" for column in columns) for columns in self.columns)

    def where(self, *columns: str) -> Form:
        """The same form with further columns in each of its sets."""
        return replace(self, columns=tuple((*given, *columns) for given in self.columns))


def held_out_key(key: str) -> str:
    """The key of the rows by which what comes of those at a key is judged: of prompts, eval_prompts."""
    return f"eval_{key.removeprefix('select_')}"


def said(role: str, content: str) -> list[dict[str, str]]:
    """A conversation of one message."""
    return [{"role": role, "content": content}]


def _prompt_row(question: str, number: int) -> dict[str, Any]:
    return {"prompt": said("user", question), "answer": "4", "ground_truth": "4", "label": "4"}


def _messages_row(question: str, number: int) -> dict[str, Any]:
    return {"messages": said("user", question) + said("assistant", f"It is {number}.")}


def _pair_row(question: str, number: int) -> dict[str, Any]:
    answers = {"chosen": said("assistant", f"It is {number}."), "rejected": said("assistant", "No.")}
    return {"prompt": said("user", question), **answers}


def _ranking_row(question: str, number: int) -> dict[str, Any]:
    answers = [said("assistant", f"It is {number}."), said("assistant", "Perhaps."), said("assistant", "No.")]
    return {"prompt": said("user", question), "completions": answers, "completion_scores": [2.0, 1.0, 0.0]}


def _unpaired_row(question: str, number: int) -> dict[str, Any]:
    good = number % 2 == 0
    answer = said("assistant", f"It is {number}." if good else "No.")
    return {"prompt": said("user", question), "completion": answer, "label": good}


def _labelled_row(question: str, number: int) -> dict[str, Any]:
    return {"text": f"{question}\nIt is {number}.\n", "label": number % 2}


def _text_row(question: str, number: int) -> dict[str, Any]:
    return {"text": f"{question} It is {number}."}


def _dialogue_row(question: str, number: int) -> dict[str, Any]:
    return {"dialog": [question, f"It is {number}.", "Thanks."] * 3, "act": [2, 1, 1 + number % 4] * 3}


def _choice_row(question: str, number: int) -> dict[str, Any]:
    return {"prompt_index": number, "choice": 0}


LEARNED = frozenset({"tokens"})
SFT = Form(
    "text to learn", (("messages",), ("prompt", "completion"), ("text",), ("input_ids",)), _messages_row, LEARNED
)
PREFERENCE = Form("preference", (("chosen", "rejected"),), _pair_row, LEARNED)
RANKING = Form("ranking", (("prompt", "completions"),), _ranking_row, LEARNED)
UNPAIRED = Form(
    "unpaired preference",
    (("prompt", "completion", "label"), ("chosen", "rejected")),
    _unpaired_row,
    LEARNED | {"thumbs"},
)
LABELLED = Form("labelled text", (("text", "label"),), _labelled_row, LEARNED)
PROMPTS = Form("prompts", (("prompt",),), _prompt_row, frozenset({"prompts"}))
CONVERSATIONS = Form("answered prompts", (("messages",), ("prompt", "completion")), _messages_row)
ANSWERS = Form("prompts with answers, or text", (("messages",), ("prompt", "completion"), ("text",)), _messages_row)
RATED = Form("answers to rate", (("chosen", "rejected"), ("prompt", "completions"), ("completion",)), _pair_row)
CORPUS = Form("any text", (("text",), ("messages",), ("prompt",), ("completion",), ("chosen",)), _text_row)
TEXT = Form("plain text", (("text",),), _text_row)
DIALOGUES = Form("dialogues", (("dialog", "act"),), _dialogue_row)
COMPLETIONS = Form("completions", (("prompt", "completion"),))
TOKENS = ("prompt_ids", "completion_ids", "logprobs")
SAMPLED = COMPLETIONS.where("prompt_index", "sample_index")
# the columns of completions that were drawn; all but the prompt are wrong of a prompt that is made of them
DRAWN = (
    *("prompt", "completion", "prompt_index", "sample_index"),
    *("prompt_ids", "completion_ids", "vocabulary", "logprobs", "truncated"),
)
OF_SAMPLES = (*DRAWN[1:], "scores")
SCORED = Form("scored completions", (("prompt", "completion", "prompt_index", "scores"),))
LISTS = Form("lists of answers", (("prompt", "completions", "prompt_ids", "completion_ids"),), None, LEARNED)
COMPARED = Form(
    "answers to compare",
    (("prompt", "completion", "prompt_index"), ("prompt", "completions"), ("prompt", "chosen", "rejected")),
    _pair_row,
)
CHOICES = Form("choices", (("prompt_index",),), _choice_row)


def makers(form: Form) -> list[str]:
    """The kinds of stages that leave such rows, as their classes say in `writes`; none for rows written by hand."""
    if form.example is not None:
        return []
    written = {word: set(kinds.find(kinds.STAGES, word).writes) for word in kinds.words(kinds.STAGES)}
    return [word for word, columns in written.items() if any(columns.issuperset(needed) for needed in form.columns)]
