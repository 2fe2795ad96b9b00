"""Layout `capybara`: Capybara's conversations, lists of turns with `input` and `output`.

data: {path: LDJnr/Capybara, layout: capybara}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trimtab.pipelines.data.layouts import MESSAGES, Layout, Row, lists, message

if TYPE_CHECKING:
    from datasets import Features


@dataclass(kw_only=True)
class Capybara(Layout):
    """A turn becomes two messages."""

    title: ClassVar[str] = "Capybara's"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (("conversation",),)

    @classmethod
    def fits(cls, features: Features, first: Row) -> bool:
        return lists(first.get("conversation"), "input", "output")

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        return {"messages": MESSAGES}

    def convert(self, row: Row) -> Iterator[Row]:
        messages = []
        for turn in row["conversation"]:
            messages += [message("user", turn["input"]), message("assistant", turn["output"])]
        yield {"messages": messages}
