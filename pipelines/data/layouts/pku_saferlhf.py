"""Layout `pku_saferlhf`: PKU-SafeRLHF's pairs, of which two questions were asked: which is better, and which is safer.

helpful: {data: {path: PKU-Alignment/PKU-SafeRLHF, layout: {kind: pku_saferlhf, question: better}}, ...}
harmless: {data: {path: PKU-Alignment/PKU-SafeRLHF, layout: {kind: pku_saferlhf, question: safer}}, ...}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from trimtab.pipelines.data.layouts import FLAG, MESSAGES, Dropped, Layout, Row, message

SAFE = ("is_response_0_safe", "is_response_1_safe")


@dataclass(kw_only=True)
class PkuSaferlhf(Layout):
    """`question` is whose answer orders a pair; the rows also say whether each of the two answers is safe."""

    question: Literal["better", "safer"]

    title: ClassVar[str] = "PKU-SafeRLHF's"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("prompt", "response_0", "response_1", "better_response_id", "safer_response_id", *SAFE),
    )
    drops: ClassVar[Mapping[str, str]] = {"unanswered": "the question has no answer"}

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        pair = dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES)
        return {**pair, "chosen_is_safe": FLAG, "rejected_is_safe": FLAG}

    def convert(self, row: Row) -> Iterator[Row]:
        chosen = row[f"{self.question}_response_id"]
        if chosen not in (0, 1):
            raise Dropped("unanswered")
        rejected = 1 - chosen
        yield {
            "prompt": [message("user", row["prompt"])],
            "chosen": [message("assistant", row[f"response_{chosen}"])],
            "rejected": [message("assistant", row[f"response_{rejected}"])],
            "chosen_is_safe": row[SAFE[chosen]],
            "rejected_is_safe": row[SAFE[rejected]],
        }
