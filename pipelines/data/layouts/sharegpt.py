"""Layout `sharegpt`: ShareGPT's conversations, lists of turns with `from` and `value`.

    data: {path: conversations.jsonl, layout: sharegpt}

`human` becomes `user`, `gpt` `assistant` and `observation` `tool`. A `function_call`, which is JSON, becomes a tool
call of the assistant's. A column `system` becomes the first message. With columns `chosen` and `rejected`, which hold
one turn each, `conversations` is the prompt of a pair.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trimtab.pipelines.data.layouts import MESSAGES, Layout, Row, lists, message

if TYPE_CHECKING:
    from datasets import Dataset, Features

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "system": "system",
    "observation": "tool",
    "function_response": "tool",
    "tool": "tool",
}


@dataclass(kw_only=True)
class Sharegpt(Layout):
    """The whole conversation becomes `messages`; tools in a column `tools` stay there."""

    title: ClassVar[str] = "ShareGPT's"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (("conversations", "chosen", "rejected"), ("conversations",))

    @classmethod
    def fits(cls, features: Features, first: Row) -> bool:
        return lists(first.get("conversations"), "from", "value")

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        return (*super().reads(names), *({"system"} & set(names)))

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        return dict.fromkeys(("prompt", "chosen", "rejected") if "chosen" in names else ("messages",), MESSAGES)

    def features(self, rows: Dataset) -> dict[str, Any]:
        from datasets import Json, List

        features = super().features(rows)
        return dict.fromkeys(features, List(Json())) if _calls_functions(rows) else features

    def convert(self, row: Row) -> Iterator[Row]:
        messages = [_message(turn) for turn in row["conversations"]]
        if row.get("system"):
            messages.insert(0, message("system", row["system"]))
        if "chosen" in row:
            yield {"prompt": messages, **{key: [_message(row[key])] for key in ("chosen", "rejected")}}
        else:
            yield {"messages": messages}


def _message(turn: Row) -> dict[str, Any]:
    speaker, text = turn["from"], turn["value"]
    if speaker not in ROLES:
        raise ValueError(f"a turn is from {speaker!r}, which is none of {', '.join(ROLES)}")
    if speaker == "function_call":
        calls = [{"type": "function", "function": call} for call in _calls(text)]
        return {**message("assistant", ""), "tool_calls": calls}
    return message(ROLES[speaker], text)


def _calls(text: str) -> list[Row]:
    called = json.loads(text)
    calls = called if isinstance(called, list) else [called]
    return [{"name": call["name"], "arguments": call.get("arguments", {})} for call in calls]


def _calls_functions(rows: Dataset) -> bool:
    """Whether any turn is a function's call; its messages have keys that the others have not."""
    import pyarrow.compute as pc

    turns = rows.with_format("arrow")[:]["conversations"].combine_chunks().flatten()
    return bool(pc.any(pc.equal(pc.struct_field(turns, "from"), "function_call")).as_py())
