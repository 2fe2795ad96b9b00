"""Layout `mbpp`: MBPP's tasks with their code; code, tests and set-up stay in their columns, for a reward.

data: {path: google-research-datasets/mbpp, layout: mbpp}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from trimtab.pipelines.data.layouts import MESSAGES, TEXT, Layout, Row, message


@dataclass(kw_only=True)
class Mbpp(Layout):
    """With `shown_tests` the prompt shows the tests, which name the function that is asked for."""

    shown_tests: bool = True

    title: ClassVar[str] = "MBPP's"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (("text", "code", "test_list"), ("prompt", "code", "test_list"))

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        return super().reads(names)[:2]

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        return {"prompt": MESSAGES, "completion": MESSAGES, "code": TEXT}

    def convert(self, row: Row) -> Iterator[Row]:
        task, code = (row[column] for column in self.reads(row))
        if self.shown_tests:
            task = "\n".join([task, "Your code should pass these tests:", *row["test_list"]])
        yield {"prompt": [message("user", task)], "completion": [message("assistant", code)], "code": code}
