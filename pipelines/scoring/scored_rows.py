"""Rows with what rewards have said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trimtab.pipelines.data import loading

if TYPE_CHECKING:
    from datasets import Dataset


def with_scores(rows: Dataset, scores: Mapping[str, Sequence[float | None]]) -> Dataset:
    """The rows with a column `scores`, a struct of rewards, in the place of another one where they have it."""
    import pyarrow as pa

    columns = list(dict.fromkeys([*rows.column_names, "scores"]))
    struct = pa.StructArray.from_arrays([pa.array(of_reward) for of_reward in scores.values()], list(scores))
    others = rows.select_columns([name for name in rows.column_names if name != "scores"])
    with loading.without_progress_bars():
        return others.add_column("scores", struct).select_columns(columns)
