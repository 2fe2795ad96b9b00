"""What can be seen in rows without a tokenizer: roles and their order, contents, answers, twins."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trimtab.pipelines.data.audit import pairs
from trimtab.pipelines.data.audit.conversations import (
    Conversations,
    is_blank,
    is_conversation,
    is_list,
    is_text,
    parsed,
)
from trimtab.pipelines.data.audit.facts import Facts
from trimtab.pipelines.data.forms import Form

BATCH = 4096  # rows that are in memory at a time
TEXTUAL = ("prompt", "completion", "chosen", "rejected", "messages", "text", "completions")
ANSWERS = ("completion", "chosen", "rejected", "completions")  # behind a prompt, where there is one
ROLES = ("system", "user", "assistant", "tool", "developer", "function")


class RowAudit:
    """Reads rows batch by batch and collects what is wrong with them in `facts`.

    `columns` are those that the stage reads, `roles` the roles that are known. What a form is learned from is looked
    at in full; of other rows, only that texts are texts.
    """

    def __init__(self, form: Form, columns: Sequence[str], roles: Collection[str]):
        self.form, self.columns, self.roles = form, columns, tuple(roles)
        self.learned, self.asked = "tokens" in form.audit, "prompts" in form.audit
        self.by_hand = form.example is not None
        self.facts = Facts(columns=list(columns))
        self.hashes: list[np.ndarray] = []

    def read(self, rows: Any) -> Facts:
        """The facts of all rows of a dataset."""
        for table in rows.select_columns(list(self.columns)).with_format("arrow").iter(BATCH):
            self._batch(table)
            self.facts.count += table.num_rows
        if self.hashes:
            hashes = np.concatenate(self.hashes)
            _, firsts = np.unique(hashes, return_index=True)
            twins = np.setdiff1d(np.arange(len(hashes)), firsts)
            self.facts.add("duplicates", twins, "stands in the data already")
            self.facts.arrays["hashes"] = hashes
        return self.facts

    def _batch(self, table: pa.Table) -> None:
        records: dict[str, list[Any]] = {}
        for column in self.columns:
            cells = table[column].combine_chunks()
            self._add("missing", np.asarray(cells.is_null()), f"column {column!r} is null")
            if column in TEXTUAL:
                records[column] = self._texts(column, cells)
            elif column == "label":
                records[column] = self._labels(cells)
        if self.learned:
            types = {column: table.schema.field(column).type for column in records if column in TEXTUAL}
            self._mixed(types, table.num_rows)
        if self.learned and {"chosen", "rejected"} <= records.keys():
            for word, rows, value in pairs.compare(records):
                self.facts.add(word, rows + self.facts.count, value)
        elif self.learned and {"prompt", "completion"} <= records.keys():
            again = pairs.begins_again(records["prompt"], records["completion"])
            self.facts.add("prompt_again", again + self.facts.count, "the completion begins with the prompt")
        if records and (self.learned or self.asked):
            self.hashes.append(np.array([_hash(row) for row in zip(*records.values(), strict=True)], dtype=np.uint64))

    def _mixed(self, types: Mapping[str, pa.DataType], count: int) -> None:
        """Adds all rows where some columns hold strings and others messages."""
        strings = [column for column, kind in types.items() if is_text(_innermost(column, kind))]
        others = [column for column in types if column not in strings]
        if strings and others:
            value = f"{', '.join(map(repr, strings))} is text, and {', '.join(map(repr, others))} is messages"
            self._add("content", np.ones(count, dtype=bool), value)

    def _add(self, word: str, of_row: np.ndarray, value: str) -> None:
        """Adds the rows of this batch at which `of_row` is true."""
        self.facts.add(word, np.flatnonzero(of_row) + self.facts.count, value)

    def _texts(self, column: str, cells: pa.Array) -> list[Any]:
        """Looks at a column of strings or conversations, and returns what stands for each: equal where they are."""
        if is_text(cells.type):
            texts = cells.cast(pa.string())
            if self.learned and column != "prompt":
                self._add(_empty(column), is_blank(texts), f"{column!r} is empty")
            return texts.fill_null("").to_pylist()
        cells = parsed(cells)
        if not is_list(cells.type):
            self._add("content", np.ones(len(cells), dtype=bool), f"{column!r} is {cells.type}")
            return [""] * len(cells)
        if column == "completions" or not is_conversation(cells.type):
            return self._lists(column, cells)
        return self._conversations(column, cells, np.arange(len(cells)))

    def _lists(self, column: str, cells: pa.Array) -> list[Any]:
        """Several answers in a row: each is looked at as one is."""
        inner = cells.type.value_type
        of_row = np.repeat(np.arange(len(cells)), pc.list_value_length(cells).fill_null(0).to_numpy())
        if is_conversation(inner):
            answers = self._conversations(column, cells.flatten(), of_row)
        elif is_text(inner) and (column == "completions" or pa.types.is_null(inner)):
            answers = cells.flatten().cast(pa.string()).fill_null("").to_pylist()
        else:
            self._add("content", np.ones(len(cells), dtype=bool), f"{column!r} is a list of {inner}")
            answers = [""] * len(of_row)
        records = [""] * len(cells)
        for row, answer in zip(of_row.tolist(), answers, strict=True):
            records[row] += answer + "\x1d"
        return records

    def _conversations(self, column: str, cells: pa.Array, of_row: np.ndarray) -> list[str]:
        talk = Conversations(cells)
        self.facts.is_chat = True
        if problem := talk.problem():
            word = "content" if talk.fields >= {"role", "content"} else "missing"
            self.facts.add(word, of_row[talk.row] + self.facts.count, f"{column!r} {problem}")
            return [""] * len(cells)
        self._messages(column, talk, of_row)
        if self.learned and column != "prompt":
            self._answers(column, talk, of_row)
        return talk.records()

    def _messages(self, column: str, talk: Conversations, of_row: np.ndarray) -> None:
        """Roles and contents of single messages, and the order of roles."""

        def add(word: str, of_message: np.ndarray, value: str) -> None:
            numbers = np.flatnonzero(of_message)
            if len(numbers) == 0:
                return
            number = int(numbers[0])
            message, role = number - talk.first[talk.row[number]], talk.role[number].as_py()
            said = value.format(message=message, role=repr(role), column=repr(column))
            self.facts.add(word, of_row[talk.row[numbers]] + self.facts.count, said)

        has_role = np.asarray(talk.role.is_valid())
        add("missing", ~has_role, "message {message} of {column} has no role")
        add("missing", talk.lacking() & has_role, "message {message} of {column} has no content")
        known = ", ".join(self.roles)
        add("roles", ~talk.is_role(*self.roles) & has_role, f"role {{role}} of {{column}} is none of {known}")
        if not (self.learned or self.asked):
            return
        begins, ends = talk.borders()
        is_turn = ~ends | (column == "prompt")
        add("empty_turn", talk.blank() & is_turn & ~talk.is_role("system"), "message {message} of {column} is empty")
        again = talk.repeats() & talk.is_role("user", "assistant")
        add("role_order", again, "two turns of {role} in a row in {column}")
        add("role_order", talk.is_role("system") & ~begins, "message {message} of {column} is a system message")
        if column not in ANSWERS or "prompt" not in self.columns:
            add("role_order", talk.is_role("assistant") & begins, "{column} begins with {role}")

    def _answers(self, column: str, talk: Conversations, of_row: np.ndarray) -> None:
        """Whether a conversation that is learned ends with an answer, and one that says something."""
        whole = talk.lengths > 0
        last, of_last = talk.last[whole], of_row[whole]
        others = (talk.is_role(*self.roles) & ~talk.is_role("assistant"))[last]
        if others.any():
            role = talk.role[int(last[others][0])].as_py()
            value = f"{column!r} ends with a message of role {role!r}"
            self.facts.add("last_speaker", of_last[others] + self.facts.count, value)
        if self.by_hand:
            blank = talk.blank()[last] & ~others
            empty = np.concatenate([of_last[blank], of_row[~whole & ~talk.absent]])
            self.facts.add(_empty(column), empty + self.facts.count, f"{column!r} is empty")

    def _labels(self, cells: pa.Array) -> list[Any]:
        if "thumbs" in self.form.audit and not pa.types.is_boolean(cells.type):
            wrong = np.asarray(cells.is_valid())
            first = cells.drop_null()[0].as_py() if wrong.any() else None
            self._add("labels", wrong, f"label {first!r} is neither true nor false")
        return [repr(cell) for cell in cells.to_pylist()]


def known_roles(tokenizer: Any) -> list[str]:
    """The roles that messages may have: the usual ones, and those that the chat template compares a role with."""
    template = getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str):
        return list(ROLES)
    named = re.findall(r"role\W{0,4}\s*==\s*['\"](\w+)['\"]", template)
    return list(dict.fromkeys([*ROLES[:4], *named]))


def _innermost(column: str, kind: pa.DataType) -> pa.DataType:
    """The type of a text of a column, of which `completions` has several in a row."""
    return kind.value_type if column == "completions" and is_list(kind) else kind


def _empty(column: str) -> str:
    return "empty_rejected" if column == "rejected" else "empty"


def _hash(record: Sequence[str]) -> int:
    return int.from_bytes(
        hashlib.blake2b("\x1c".join(record).encode(errors="replace"), digest_size=8).digest(), "little"
    )
