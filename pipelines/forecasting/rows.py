"""How many rows a dataset has and how long their texts are: of rows that are there, from some of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from trimtab.pipelines.data import loading
from trimtab.pipelines.data.audit import sources
from trimtab.pipelines.data.audit.tokens import TokenAudit
from trimtab.pipelines.data.forms import Form
from trimtab.pipelines.forecasting.work import Rows
from trimtab.rewards import text

LOOKED_AT = 256  # rows whose tokens are counted
CHARACTERS = 4.0  # of a token, where the tokenizer is not there yet
UNKNOWN = 1000, 256.0  # rows and tokens, where nothing is known at all


def unknown(source: str) -> Rows:
    """Some rows in the place of those of which nothing is known, and that they are no more than that."""
    count, tokens = UNKNOWN
    return typical(count, tokens, f"{source}: {count} rows of {tokens:g} tokens")


def typical(count: float, tokens: float, assumed: str, *, texts: int = 1, prompts: float | None = None) -> Rows:
    """So many rows of texts of one length, as `assumed` says."""
    return Rows(count, np.full((1, texts), tokens), count if prompts is None else prompts, assumed=(assumed,))


def of(block: Any, form: Form, tokenizer: Any, place: Sequence[str]) -> Rows:
    """The rows of a data block whose files are there; prompts of a form of prompts, else the texts with them."""
    parts = [_of_part(part, form, tokenizer, place) for part in sources.parts(block)]
    return joined(parts)


def joined(parts: Sequence[Rows]) -> Rows:
    """Several datasets as one, of which each has its share among the rows that were looked at."""
    if len(parts) == 1:
        return parts[0]
    texts = max(part.tokens.shape[1] for part in parts)
    total = sum(part.count for part in parts)
    shares, asked = [], []
    for part in parts:
        places = np.linspace(0, len(part.tokens) - 1, max(1, round(LOOKED_AT * part.count / max(1, total))))
        shares.append(np.pad(part.tokens[places.astype(int)], ((0, 0), (0, texts - part.tokens.shape[1])), "edge"))
        asked.append(part.before[places.astype(int)])
    assumed = tuple(dict.fromkeys(chain.from_iterable(part.assumed for part in parts)))
    longest = max(part.answer for part in parts)
    prompts = sum(part.prompts for part in parts)
    return Rows(total, np.concatenate(shares), prompts, longest, assumed, np.concatenate(asked))


def _of_part(part: Any, form: Form, tokenizer: Any, place: Sequence[str]) -> Rows:
    rows = loading.load(part, place)
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(LOOKED_AT, len(rows))).astype(int))
    some = rows.select(chosen)
    prompts = len(rows)
    if "prompt_index" in rows.column_names:
        prompts = len(set(rows["prompt_index"][:]))
    if "completion_ids" in rows.column_names and "prompt_ids" in rows.column_names:
        asked = np.array([float(len(row["prompt_ids"])) for row in some])
        longest = max(map(_longest_answer, some))
        return Rows(len(rows), _square([_ids(row) for row in some]), prompts, longest, asked=asked)
    columns = sources.columns_of(rows, form, sources.source(part), place)
    if tokenizer is None or "completions" in columns:
        assumed = (f"{sources.source(part)}: {CHARACTERS:g} characters a token",)
        asked = np.array([_asked(row) for row in some])
        return Rows(len(rows), _square([_characters(row, columns) for row in some]), prompts, 0, assumed, asked)
    is_prompts = set(columns) == {"prompt"}
    facts = TokenAudit(tokenizer, columns, learned=not is_prompts).read(some)
    if is_prompts:
        return Rows(len(rows), _square([[length] for _, length in facts.arrays["prompts"]]), prompts)
    of_rows: dict[int, list[float]] = {}
    for row, length, *_ in facts.arrays["answers"]:
        of_rows.setdefault(int(row), []).append(float(length))
    of_prompts = {int(row): float(length) for row, length in facts.arrays["prompts"]}
    asked = np.array([of_prompts.get(row, 0.0) for row in of_rows] or [0.0])
    return Rows(len(rows), _square(list(of_rows.values())), prompts, asked=asked)


def _ids(row: dict[str, Any]) -> list[float]:
    return [len(row["prompt_ids"]) + length for length in _answers(row)]


def _longest_answer(row: dict[str, Any]) -> int:
    return max(_answers(row))


def _answers(row: dict[str, Any]) -> list[int]:
    """The tokens of a row's one answer, or of each in its list."""
    answers = row["completion_ids"]
    return list(map(len, answers if answers and isinstance(answers[0], list) else [answers]))


def _asked(row: dict[str, Any]) -> float:
    """The tokens of a row's prompt by its characters."""
    return len(text(row["prompt"])) / CHARACTERS if row.get("prompt") else 0.0


def _characters(row: dict[str, Any], columns: Sequence[str]) -> list[float]:
    """The tokens of a row's texts by their characters, the prompt's in each."""
    before = len(text(row["prompt"])) if row.get("prompt") else 0
    answers: list[Any] = []
    for column in columns:
        if column != "prompt" and row.get(column) is not None:
            answers += row[column] if column == "completions" else [row[column]]
    lengths = [len(text(answer)) for answer in answers if isinstance(answer, str | list)]
    return [(before + length) / CHARACTERS for length in lengths or [0]]


def _square(rows: Sequence[Sequence[float]]) -> Any:
    """Rows of as many texts as the longest has: what is missing is as long as the last one."""
    lists = [list(row) for row in rows if len(row)] or [[1.0]]
    texts = max(map(len, lists))
    return np.array([row + row[-1:] * (texts - len(row)) for row in lists], dtype=np.float64)
