"""Layout `text_and_messages`: a prompt that is text beside answers that are messages, or the other way round.

It is used without a word in the recipe: the prompt becomes a user's message, a text that answers an assistant's. Where
the answers are whole conversations, as in ultrafeedback_binarized, what all of them begin with is the prompt, and the
text must be one of its user's messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar

from trimtab.pipelines.data.layouts import MESSAGES, Layout, Row, feature, message

if TYPE_CHECKING:
    from datasets import Dataset, Features

ANSWERS = ("chosen", "rejected", "completion", "completions")


@dataclass(kw_only=True)
class TextAndMessages(Layout):
    """Answers are `chosen` and `rejected`, `completion`, or those in `completions`."""

    title: ClassVar[str] = "a text and messages"
    unasked: ClassVar[bool] = True
    columns: ClassVar[tuple[tuple[str, ...], ...]] = tuple(("prompt", name) for name in ANSWERS)

    @classmethod
    def fits(cls, features: Features, first: Row) -> bool:
        names = [name for name in ("prompt", *ANSWERS) if name in features]
        conversational = {name: _is_conversational(features[name], name) for name in names}
        return "prompt" in names and set(conversational.values()) == {True, False}

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in ("prompt", *ANSWERS))

    def features(self, rows: Dataset) -> dict[str, Any]:
        from datasets import List

        names = self.reads(rows.column_names)
        conversations = [rows.features[name] for name in names if _is_conversational(rows.features[name], name)]
        while isinstance(conversations[0].feature, List):
            conversations[0] = conversations[0].feature
        messages = conversations[0] if _is_conversational(conversations[0], "prompt") else feature(MESSAGES)
        return {name: List(messages) if name == "completions" else messages for name in names}

    def convert(self, row: Row) -> Iterator[Row]:
        names = [name for name in ANSWERS if name in row]
        told: list[Any] = []
        for name in names:
            told += row[name] if name == "completions" else [row[name]]
        conversations = [_conversation("assistant", answer) for answer in told]
        prompt = row["prompt"]
        if isinstance(prompt, str):
            prompt, conversations = _divided(prompt, conversations)
        remaining = iter(conversations)
        of_columns = {
            name: [next(remaining) for _ in row[name]] if name == "completions" else next(remaining) for name in names
        }
        yield {"prompt": prompt, **of_columns}


def _divided(prompt: str, answers: Sequence[Any]) -> tuple[list[Row], list[Any]]:
    """The prompt as messages, and the answers behind it. Raises ValueError where they do not belong together."""
    opened = [answer for answer in answers if answer and answer[0]["role"] not in ("assistant", "tool")]
    if not opened:
        return _conversation("user", prompt), list(answers)
    alike = takewhile(lambda messages: all(item == messages[0] for item in messages), zip(*answers, strict=False))
    shared = [messages[0] for messages in alike][: min(map(len, answers)) - 1]
    asked = [index for index, item in enumerate(shared) if item["role"] == "user"]
    of_prompt = [index for index in asked if shared[index]["content"].strip() == prompt.strip()]
    if not of_prompt:
        raise ValueError("the prompt is no user's message that all answers begin with")
    end = 1 + (asked if len(answers) > 1 else of_prompt)[-1]  # one answer alone tells nothing of where it begins
    return shared[:end], [answer[end:] for answer in answers]


def _conversation(role: str, value: Any) -> Any:
    return [message(role, value)] if isinstance(value, str) else value


def _is_conversational(feature: Any, name: str) -> bool:
    """Whether a column holds messages: a list of them, or of lists of them for `completions`."""
    from datasets import List

    inner = feature.feature if name == "completions" and isinstance(feature, List) else feature
    inner = inner.feature if isinstance(inner, List) else inner
    return isinstance(inner, dict) and {"role", "content"} <= set(inner)
