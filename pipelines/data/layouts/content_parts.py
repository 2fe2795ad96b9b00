"""Layout `content_parts`: messages whose content is a list of parts, `[{type: text, text: ...}]`.

It is used without a word in the recipe: the texts of the parts are joined. Parts of other types are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trimtab.pipelines.data.layouts import Layout, Row

if TYPE_CHECKING:
    from datasets import Dataset, Features

CONVERSATIONS = ("prompt", "completion", "completions", "chosen", "rejected", "messages")


@dataclass(kw_only=True)
class ContentParts(Layout):
    """Looks at `prompt`, `completion`, `completions`, `chosen`, `rejected` and `messages`."""

    title: ClassVar[str] = "messages with parts"
    unasked: ClassVar[bool] = True
    columns: ClassVar[tuple[tuple[str, ...], ...]] = tuple((name,) for name in CONVERSATIONS)

    @classmethod
    def fits(cls, features: Features, first: Row) -> bool:
        return any(_has_parts(features[name]) for name in CONVERSATIONS if name in features)

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in CONVERSATIONS)

    def features(self, rows: Dataset) -> dict[str, Any]:
        return {name: _joined(rows.features[name]) for name in self.reads(rows.column_names)}

    def convert(self, row: Row) -> Iterator[Row]:
        yield {name: _with_text(row[name]) for name in self.reads(row)}


def _with_text(value: Any) -> Any:
    """The value with one text for the parts of every message in it, which may be in lists."""
    if isinstance(value, list):
        return [_with_text(item) for item in value]
    if isinstance(value, dict) and isinstance(value.get("content"), list):
        return {**value, "content": "".join(map(_text, value["content"]))}
    return value


def _text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
        raise ValueError(f"a message has a part of type {part.get('type')!r}: only text is read")
    return part["text"]


def _has_parts(feature: Any) -> bool:
    from datasets import Json, List

    inner = _message_feature(feature)
    return isinstance(inner, dict) and isinstance(inner.get("content"), List | Json)


def _joined(feature: Any) -> Any:
    from datasets import List, Value

    if isinstance(feature, List):
        return List(_joined(feature.feature))
    return {**feature, "content": Value("string")} if isinstance(feature, dict) else feature


def _message_feature(feature: Any) -> Any:
    from datasets import List

    return _message_feature(feature.feature) if isinstance(feature, List) else feature
