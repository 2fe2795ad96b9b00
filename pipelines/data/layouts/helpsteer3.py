"""Layout `helpsteer3`: HelpSteer3's two answers with the strength of the preference, -3 (the first) to 3 (the second).

    data: {path: nvidia/HelpSteer3, layout: {kind: helpsteer3, strength: 2}}

HelpSteer2's preferences have the same layout under other names and are read too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from trimtab.pipelines.data.layouts import MESSAGES, Dropped, Layout, Row, message


@dataclass(kw_only=True)
class Helpsteer3(Layout):
    """`strength` is the least strength of a preference that is kept, 1 to 3."""

    strength: int = 1

    title: ClassVar[str] = "HelpSteer3's"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("context", "response1", "response2", "overall_preference"),
        ("prompt", "response_1", "response_2", "preference_strength"),
    )
    drops: ClassVar[Mapping[str, str]] = {
        "tied": "the strength is 0, or nobody has said it",
        "weak": "the strength is less than `strength`",
    }

    def __post_init__(self) -> None:
        if not 1 <= self.strength <= 3:
            raise ValueError(f"strength must be 1, 2 or 3, got {self.strength}")

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        return dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES)

    def convert(self, row: Row) -> Iterator[Row]:
        context, first, second, preference = (row[column] for column in self.reads(row))
        if not preference:
            raise Dropped("tied")
        if abs(preference) < self.strength:
            raise Dropped("weak")
        chosen, rejected = (second, first) if preference > 0 else (first, second)
        prompt = [message("user", context)] if isinstance(context, str) else context
        prompt = [message(turn["role"], turn["content"]) for turn in prompt]
        yield {
            "prompt": prompt,
            "chosen": [message("assistant", chosen)],
            "rejected": [message("assistant", rejected)],
        }
