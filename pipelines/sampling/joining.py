"""The rows of prompts beside their completions, a batch at a time: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trimtab.pipelines.data.writing import BATCH, write_batches

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.planning.recipe import Step


def batches(rows: Dataset, completions: Dataset) -> Iterator[Dataset]:
    """The completions by `prompt_index` and `sample_index`, each beside the other columns of its prompt's row."""
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset, DatasetInfo, Features

    prompts = rows.select_columns([name for name in rows.column_names if name not in completions.column_names])
    info = DatasetInfo(features=Features({**prompts.features, **completions.features}))
    numbers = completions.select_columns(["prompt_index", "sample_index"]).with_format("numpy")[:]
    order = np.lexsort((numbers["sample_index"], numbers["prompt_index"]))
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        asked, answered = prompts.select(numbers["prompt_index"][places]), completions.select(places)
        sides = [side.with_format("arrow")[:] for side in (asked, answered)]
        columns = {name: side[name] for side in sides for name in side.column_names}
        yield Dataset(pa.table(columns, schema=info.features.arrow_schema), info=info)


def write(step: Step, rows: Dataset, completions: Dataset) -> None:
    """Writes the step's dataset. The main rank alone reads the rows for it; the others wait."""
    from accelerate import PartialState

    distributed = PartialState()
    if distributed.is_main_process:
        write_batches(step, batches(rows, completions))  # and waits for the others
    else:
        distributed.wait_for_everyone()


def totals(completions: Dataset) -> dict[str, float]:
    """All tokens, the mean length in tokens, and the share of completions without an end."""
    import pyarrow.compute as pc

    tokens = truncated = 0
    for table in completions.select_columns(["completion_ids", "truncated"]).with_format("arrow").iter(BATCH):
        tokens += pc.sum(pc.list_value_length(table["completion_ids"])).as_py()
        truncated += pc.sum(table["truncated"]).as_py()
    count = len(completions)
    return {"tokens": tokens, "length": tokens / count, "truncated": truncated / count}
