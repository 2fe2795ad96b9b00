"""The token ids that a policy is asked, of all rows of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trl

from trimtab.pipelines.data.choices import source
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.rewards._rendering import Unrenderable, prompt_ids

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def token_ids(
    tokenizer: PreTrainedTokenizerBase, rows: Dataset, block: trl.DatasetMixtureConfig, place: Sequence[str]
) -> list[list[int]]:
    """The ids of every prompt. Raises RecipeError for a row of `block` that there is no asking."""
    return [_ids(tokenizer, row, f"{source(block)}, row {number}", place) for number, row in enumerate(rows)]


def _ids(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], name: str, place: Sequence[str]) -> list[int]:
    try:
        ids = prompt_ids(tokenizer, row["prompt"], row)
    except Unrenderable as error:
        raise RecipeError(f"{name}: {error}", place) from error
    if not ids:
        raise RecipeError(f"{name}: the prompt is empty, and the tokenizer puts nothing before it", place)
    return ids
