"""Choices among completions that people or a judge have made, one row for each prompt.

{"prompt_index": 0, "choice": 2}             # the sample_index of the chosen completion
{"prompt_index": 1, "ranking": [3, 0, 1]}    # several, best first
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import trl

from trimtab.pipelines.data.loading import files, load
from trimtab.pipelines.planning.errors import RecipeError


def read(
    block: trl.DatasetMixtureConfig, samples: Mapping[int, Sequence[int]], keep: int, place: Sequence[str]
) -> dict[int, list[int]]:
    """prompt_index -> sample indices, best first, at least `keep` of them. Raises RecipeError naming the wrong row.

    `samples` are the sample indices that each prompt has.
    """
    choices: dict[int, list[int]] = {}
    for number, row in enumerate(load(block, place)):
        ranking = [row["choice"]] if row.get("choice") is not None else row.get("ranking")
        if problem := _problem(row, ranking, samples, choices, keep):
            raise RecipeError(f"{source(block)}, row {number}: {problem}", place)
        choices[row["prompt_index"]] = ranking
    return choices


def source(block: trl.DatasetMixtureConfig) -> str:
    """The files of a data block, for a message."""
    return ", ".join(chain.from_iterable(map(files, block.datasets)))


def _problem(
    row: Mapping[str, Any],
    ranking: Any,
    samples: Mapping[int, Sequence[int]],
    choices: Mapping[int, Sequence[int]],
    keep: int,
) -> str | None:
    """What is wrong with a row, or None."""
    index, given = row["prompt_index"], [key for key in ("choice", "ranking") if row.get(key) is not None]
    if index not in samples:
        return f"no prompt_index {index!r} among the completions"
    if index in choices:
        return f"a second choice for prompt_index {index}"
    if len(given) != 1:
        return f"expected either `choice` or `ranking`, got {' and '.join(given) or 'neither'}"
    if not isinstance(ranking, list):
        return f"`ranking` is {ranking!r}, expected a list of sample indices"
    for sample in ranking:
        if type(sample) is not int or sample not in samples[index]:
            return f"no sample_index {sample!r} for prompt_index {index} (there are {list(samples[index])})"
    if len(set(ranking)) < len(ranking):
        return f"`ranking` {ranking} has a sample_index twice"
    if len(ranking) < keep:
        return f"names {len(ranking)} of the {keep} to keep: give a longer `ranking`"
    return None
