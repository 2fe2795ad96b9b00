"""Layout `helpsteer2`: HelpSteer2's answers, one a row, each with five attributes.

    data: {path: nvidia/HelpSteer2, layout: {kind: helpsteer2, attribute: helpfulness, margin: 1}}

The rows of one prompt are compared with each other. A prompt of several turns has "<extra_id_1>" before each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from trimtab.pipelines.data.layouts import Row, message
from trimtab.pipelines.data.ranked import RankedAnswers

SPEAKERS = {"User\n": "user", "Assistant\n": "assistant"}


@dataclass(kw_only=True)
class Helpsteer2(RankedAnswers):
    """`attribute` is the one by which answers are compared."""

    attribute: Literal["helpfulness", "correctness", "coherence", "complexity", "verbosity"] = "helpfulness"

    title: ClassVar[str] = "HelpSteer2's"
    group: ClassVar[str | None] = "prompt"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("prompt", "response", "helpfulness", "correctness", "coherence", "complexity", "verbosity"),
    )

    def convert(self, row: Row) -> Iterator[Row]:
        return self.chosen(_turns(row["prompt"][0]), list(zip(row[self.attribute], row["response"], strict=True)))


def _turns(prompt: str) -> list[Row]:
    first, *others = prompt.split("<extra_id_1>")
    messages = [message("user", first.strip())]
    for turn in others:
        speaker = next((speaker for speaker in SPEAKERS if turn.startswith(speaker)), None)
        if speaker is None:
            raise ValueError(f"a turn of the prompt begins with {turn[:20]!r}, not with User or Assistant")
        messages.append(message(SPEAKERS[speaker], turn.removeprefix(speaker).strip()))
    return messages
