"""Writing the dataset that is a step's artifact."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from trimtab.pipelines.planning.recipe import Step


def write_rows(step: Step, rows: pa.Table | Iterable[dict[str, Any]]) -> None:
    """Writes the step's dataset, `train.parquet`, on the main process; the other ranks wait for it."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from accelerate import PartialState

    distributed = PartialState()
    if distributed.is_main_process:
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows))
        pq.write_table(table, step.output / "train.parquet")
    distributed.wait_for_everyone()
