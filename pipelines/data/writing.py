"""Writing the dataset that is a step's artifact."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning.errors import RecipeError

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.planning.recipe import Step


def write_rows(step: Step, rows: Dataset | Iterable[dict[str, Any]]) -> None:
    """Writes the step's dataset, `train.parquet`, on the main process; the other ranks wait for it.

    Dictionaries with different keys, such as the parameters of two tools, stay as they are: a chat template would
    render a key that another row has, and null in this one. Raises RecipeError where there are no rows: the steps
    after this one could only say so of a file that is not theirs.
    """
    import pyarrow.parquet as pq
    from accelerate import PartialState
    from datasets import Dataset

    rows = rows if isinstance(rows, Dataset) else list(rows)
    if not len(rows):
        raise RecipeError(f"{step.name} leaves no rows: everything that it was given was left out", step.path)
    distributed = PartialState()
    if distributed.is_main_process:
        table = rows if isinstance(rows, Dataset) else Dataset.from_list(rows, on_mixed_types="use_json")
        pq.write_table(table.with_format("arrow")[:], step.output / "train.parquet")
    distributed.wait_for_everyone()
