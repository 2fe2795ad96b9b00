"""Layout `alpaca`: an `instruction`, an `input` that may be empty, and the `output`.

    data: {path: alpaca.jsonl, layout: alpaca}

The user's message is the instruction and, behind an empty line, the input. Columns `system` and `history` (a list of
earlier questions with their answers) come before it where they are there. With `chosen` and `rejected` in the place of
`output` the rows are pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from trimtab.pipelines.data.layouts import MESSAGES, Layout, Row, message

OPTIONAL = ("input", "system", "history")


@dataclass(kw_only=True)
class Alpaca(Layout):
    """`separator` stands between instruction and input."""

    separator: str = "\n\n"

    title: ClassVar[str] = "alpaca's"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("instruction", "output"),
        ("instruction", "chosen", "rejected"),
    )

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        return (*super().reads(names), *(name for name in names if name in OPTIONAL))

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        answers = ("completion",) if "output" in names else ("chosen", "rejected")
        return dict.fromkeys(("prompt", *answers), MESSAGES)

    def convert(self, row: Row) -> Iterator[Row]:
        prompt = [message("system", row["system"])] if row.get("system") else []
        for question, answer in row.get("history") or ():
            prompt += [message("user", question), message("assistant", answer)]
        parts = [row["instruction"], row.get("input")]
        prompt.append(message("user", self.separator.join(part for part in parts if part)))
        answers = {"completion": "output"} if "output" in row else {"chosen": "chosen", "rejected": "rejected"}
        yield {"prompt": prompt, **{to: [message("assistant", row[column])] for to, column in answers.items()}}
