"""Rows that are held out by their prompts: a prompt is on one side, whatever rows come or go.

A prompt's side is a hash of what was first asked: the prompt up to its first answer, without system messages, case,
white space and the ways to encode a character. So no later turn of a conversation, and no other answer to the same
question, is on the other side, and the same question is on the same side in the data of every stage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.algorithms.clean_text import fold

if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 1000  # rows that are in memory at a time
COLUMNS = ("prompt", "completion", "messages", "chosen", "rejected", "text", "dialog", "input_ids")


def numbers(rows: Dataset, fraction: float, *, held_out: bool) -> list[int]:
    """The numbers of the rows that are held out, or of all others, in their order."""
    limit, kept = int(fraction * 2**64), []
    columns = [name for name in COLUMNS if name in rows.column_names]
    start = 0
    for batch in rows.select_columns(columns).iter(BATCH):
        records = [dict(zip(batch, cells, strict=True)) for cells in zip(*batch.values(), strict=True)]
        kept += [place for place, row in enumerate(records, start) if (_hash(question(row)) < limit) == held_out]
        start += len(records)
    return kept


def question(row: Mapping[str, Any]) -> str:
    """What was first asked in a row, folded; of text without a prompt, all of it."""
    if asked := _asked(row.get("prompt")):
        return asked
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        common = _common(chosen, rejected)
        # answers may begin alike, so a line that both have in part is not the prompt's
        return fold(common[: common.rfind("\n")] if "\n" in common.strip() else common) or fold(chosen)
    for column in ("messages", "chosen", "completion", "text", "dialog", "input_ids"):
        if asked := _asked(row.get(column)):
            return asked
    return ""


def _common(one: str, other: str) -> str:
    return "".join(
        character for character, _ in takewhile(lambda two: two[0] == two[1], zip(one, other, strict=False))
    )


def _asked(cell: Any) -> str:
    """The turns of a conversation before its first answer; a text as it is."""
    if isinstance(cell, str):
        return fold(cell)
    if not isinstance(cell, Sequence):
        return ""
    if not (cell and isinstance(cell[0], Mapping)):
        return " ".join(map(str, cell))
    roles = [message.get("role") for message in cell]
    before = cell[: roles.index("assistant")] if "assistant" in roles else cell
    turns = [message for message in before if message.get("role") != "system"] or cell
    return fold("\n".join(str(message.get("content")) for message in turns))


def _hash(asked: str) -> int:
    return int.from_bytes(hashlib.blake2b(asked.encode(errors="replace"), digest_size=8).digest(), "little")
