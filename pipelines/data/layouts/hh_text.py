"""Layout `hh_text`: HH-RLHF's texts, in which "Human:" and "Assistant:" open the turns.

    data: {path: harmless-base.jsonl.gz, layout: hh_text}

`chosen` and `rejected` are whole conversations, or answers to a `prompt`; a `text` alone becomes `messages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trimtab.pipelines.data.layouts import MESSAGES, Dropped, Layout, Row, message
from trimtab.pipelines.data.layouts._markers import ASSISTANT, USER, turns

if TYPE_CHECKING:
    from datasets import Features


@dataclass(kw_only=True)
class HhText(Layout):
    """`user` and `assistant` are the markers, such as "### Human:" and "### Assistant:" of other texts."""

    user: str = USER
    assistant: str = ASSISTANT

    title: ClassVar[str] = "HH-RLHF's, texts with role markers"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("prompt", "chosen", "rejected"),
        ("chosen", "rejected"),
        ("text",),
    )
    drops: ClassVar[Mapping[str, str]] = {
        "malformed": "a text does not begin with a marker, or does not end with an answer",
        "different_prompts": "the two answers stand behind different conversations",
    }

    @classmethod
    def fits(cls, features: Features, first: Row) -> bool:
        texts = [first[column] for column in ("prompt", "chosen", "text") if isinstance(first.get(column), str)]
        return super().fits(features, first) and bool(texts) and texts[0].lstrip().startswith(USER.strip())

    def __post_init__(self) -> None:
        if not self.user.strip() or not self.assistant.strip():
            raise ValueError("user and assistant must be markers that are not empty")

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        columns = ("messages",) if self.reads(names) == ("text",) else ("prompt", "chosen", "rejected")
        return dict.fromkeys(columns, MESSAGES)

    def convert(self, row: Row) -> Iterator[Row]:
        if "chosen" not in row:
            yield {"messages": self._turns(row["text"])}
            return
        if "prompt" in row:
            prompt = self._turns(row["prompt"])
            chosen, rejected = (message("assistant", row[key].strip()) for key in ("chosen", "rejected"))
        else:
            *prompt, chosen = self._answered(row["chosen"])
            *other, rejected = self._answered(row["rejected"])
            if prompt != other:
                raise Dropped("different_prompts")
        yield {"prompt": prompt, "chosen": [chosen], "rejected": [rejected]}

    def _turns(self, text: str) -> list[Row]:
        try:
            return turns(text, self.user, self.assistant)
        except ValueError:
            raise Dropped("malformed") from None

    def _answered(self, text: str) -> list[Row]:
        messages = self._turns(text)
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            raise Dropped("malformed")
        return messages
