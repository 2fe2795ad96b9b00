"""The token ids that a policy is asked, of all rows of prompts.

Ranks share out the rows, and what they have made is mapped from the disk: no rank renders or holds all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import trl

from trimtab.pipelines.data.choices import source
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.sampling import shards
from trimtab.rewards._rendering import Unrenderable, prompt_ids

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from trimtab.pipelines.planning.recipe import Step

ROWS = 4096  # of a part


def token_ids(
    step: Step,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    block: trl.DatasetMixtureConfig,
    place: Sequence[str],
) -> Dataset:
    """The ids of every prompt, as a column `ids`. Raises RecipeError for a row of `block` that there is no asking."""

    def make(part: int) -> list[dict[str, Any]]:
        numbers = range(part * ROWS, min(len(rows), (part + 1) * ROWS))
        named = zip(numbers, rows.select(numbers), strict=True)
        return [{"ids": _ids(tokenizer, row, f"{source(block)}, row {number}", place)} for number, row in named]

    count = -(-len(rows) // ROWS)
    shards.compute(step, "prompts", count, make)
    return shards.collect(step, "prompts", count)


def lengths(ids: Dataset) -> np.ndarray:
    """How many tokens each prompt has."""
    import pyarrow.compute as pc

    tables = ids.with_format("arrow").iter(ROWS)
    return np.concatenate([pc.list_value_length(table["ids"]).to_numpy() for table in tables])


def _ids(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], name: str, place: Sequence[str]) -> list[int]:
    try:
        ids = prompt_ids(tokenizer, row["prompt"], row)
    except Unrenderable as error:
        raise RecipeError(f"{name}: {error}", place) from error
    if not ids:
        raise RecipeError(f"{name}: the prompt is empty, and the tokenizer puts nothing before it", place)
    return ids
