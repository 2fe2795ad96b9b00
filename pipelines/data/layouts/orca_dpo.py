"""Layout `orca_dpo`: orca_dpo_pairs, two answers to a `question` under a `system` message that may be empty.

data: {path: Intel/orca_dpo_pairs, layout: orca_dpo}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from trimtab.pipelines.data.layouts import MESSAGES, Layout, Row, message


@dataclass(kw_only=True)
class OrcaDpo(Layout):
    """The question may also be in a column `input`."""

    title: ClassVar[str] = "orca_dpo_pairs'"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("system", "question", "chosen", "rejected"),
        ("system", "input", "chosen", "rejected"),
    )

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        return dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES)

    def convert(self, row: Row) -> Iterator[Row]:
        system, question, chosen, rejected = (row[column] for column in self.reads(row))
        opening = [message("system", system)] if system else []
        yield {
            "prompt": [*opening, message("user", question)],
            "chosen": [message("assistant", chosen)],
            "rejected": [message("assistant", rejected)],
        }
