"""A column of conversations as flat arrays: one role and one content for each message of a batch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MESSAGE, TURN = "\x1e", "\x1f"  # separators of the records that stand for conversations: no text has them


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def is_conversation(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists of messages, whatever is in them."""
    return is_list(kind) and (pa.types.is_struct(kind.value_type) or _is_json(kind.value_type))


def parsed(cells: pa.Array) -> pa.Array:
    """The cells; conversations whose messages are kept as JSON, as those with calls of tools are, as plain ones."""
    if not (is_list(cells.type) and isinstance(cells.type.value_type, pa.JsonType)):
        return cells
    written = cells.flatten().to_pylist()
    messages = [json.loads(message) if message is not None else {} for message in written]
    seen = [{key: message.get(key) for key in ("role", "content")} for message in messages]
    calls = [bool(message.get("tool_calls")) or None for message in messages]
    plain = pa.array(seen, pa.struct({"role": pa.string(), "content": pa.string()}))
    struct = pa.StructArray.from_arrays(
        [plain.field("role"), plain.field("content"), pa.array(calls, pa.bool_())], ["role", "content", "tool_calls"]
    )
    ends = np.cumsum(pc.list_value_length(cells).fill_null(0).to_numpy())
    return pa.ListArray.from_arrays(pa.array([0, *ends], pa.int32()), struct)


class Conversations:
    """The messages of a batch of conversations, end to end.

    `row` is the conversation of each message, `first` and `last` are the positions of the first and the last message
    of each conversation (`last` < `first` where there is none).
    """

    def __init__(self, cells: pa.Array):
        self.lengths = pc.list_value_length(cells).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        self.first = np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)
        self.last = self.first + self.lengths - 1
        self.row = np.repeat(np.arange(len(cells)), self.lengths)
        self.absent = np.asarray(cells.is_null())
        messages = cells.flatten()
        if _is_json(messages.type):
            messages = _decoded(messages)
        self.fields = {field.name for field in messages.type}
        self.role = _field(messages, "role", self.fields)
        self.content = _field(messages, "content", self.fields)
        self.calls = _calls(messages, self.fields)

    def problem(self) -> str | None:
        """Why nothing can be made of the messages, or None where roles and contents are strings."""
        if len(self.row) and not {"role", "content"} <= self.fields:
            return "needs messages with role and content"
        if is_list(self.content.type):
            return "has messages whose content is a list of parts, not a string"
        if not (is_text(self.role.type) and is_text(self.content.type)):
            return f"has messages whose role and content are {self.role.type} and {self.content.type}"
        return None

    def borders(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which messages are the first and which the last of their conversation."""
        begins, ends = np.zeros((2, len(self.row)), dtype=bool)
        begins[self.first[self.lengths > 0]] = True
        ends[self.last[self.lengths > 0]] = True
        return begins, ends

    def repeats(self) -> NDArray[np.bool_]:
        """Which messages are of the role of the one before."""
        roles = np.asarray(self.role.dictionary_encode().indices.fill_null(-1))
        again = np.zeros(len(roles), dtype=bool)
        again[1:] = (roles[1:] == roles[:-1]) & (self.row[1:] == self.row[:-1])
        return again

    def lacking(self) -> NDArray[np.bool_]:
        """Which messages have no role, or neither a content nor a call of a tool."""
        no_content = np.asarray(self.content.is_null()) & ~self.calls
        return np.asarray(self.role.is_null()) | no_content

    def blank(self) -> NDArray[np.bool_]:
        """Which messages hold nothing but white space, and call no tool."""
        return is_blank(self.content) & ~self.calls

    def is_role(self, *roles: str) -> NDArray[np.bool_]:
        """Which messages are of one of these roles."""
        return np.asarray(pc.is_in(self.role, value_set=pa.array(roles, self.role.type)))

    def records(self) -> list[str]:
        """Each conversation as one string, in which a conversation's beginning is the string's beginning."""
        content = self.content.cast(pa.string()).fill_null("")
        messages = pc.binary_join_element_wise(self.role.cast(pa.string()).fill_null(""), content, MESSAGE, TURN)
        ends = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), messages)
        return pc.binary_join(lists, "").to_pylist()


def is_blank(texts: pa.Array) -> NDArray[np.bool_]:
    """Which strings are there and hold nothing but white space."""
    texts = texts.cast(pa.string())
    return np.asarray(pc.equal(pc.binary_length(pc.utf8_trim_whitespace(texts)), 0).fill_null(False))


def _is_json(kind: pa.DataType) -> bool:
    """Whether datasets keeps these values as JSON, as it does with messages that have not all the same keys."""
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.json"


def _decoded(messages: pa.Array) -> pa.Array:
    """Messages that are kept as JSON, with their roles, contents and calls of tools."""
    read = [json.loads(text) if text else {} for text in messages.storage.to_pylist()]
    read = [message if isinstance(message, dict) else {} for message in read]
    contents = [message.get("content") for message in read]
    if all(content is None or isinstance(content, str) for content in contents):
        content = pa.array(contents, pa.string())
    else:
        content = pa.array([[]] * len(contents), pa.list_(pa.string()))
    role = pa.array([message.get("role") for message in read], pa.string())
    calls = pa.array([bool(message.get("tool_calls")) or None for message in read], pa.bool_())
    return pa.StructArray.from_arrays([role, content, calls], ["role", "content", "tool_calls"])


def _field(messages: pa.Array, name: str, fields: set[str]) -> pa.Array:
    return pc.struct_field(messages, name) if name in fields else pa.nulls(len(messages), pa.string())


def _calls(messages: pa.Array, fields: set[str]) -> NDArray[np.bool_]:
    """Which messages call a tool, and so need no content."""
    if "tool_calls" not in fields:
        return np.zeros(len(messages), dtype=bool)
    calls: Any = pc.struct_field(messages, "tool_calls")
    if not is_list(calls.type):
        return np.asarray(calls.is_valid())
    return np.asarray(pc.greater(pc.list_value_length(calls), 0).fill_null(False))
