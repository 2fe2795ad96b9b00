"""Writing the dataset that is a step's artifact, a group of rows at a time: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning.errors import RecipeError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features

    from trimtab.pipelines.planning.recipe import Step

BATCH = 1000  # rows that are dictionaries, or that a dataset gives, at a time
GROUP = 1 << 26  # bytes of Arrow that make a row group


def write_rows(step: Step, rows: Dataset | Iterable[dict[str, Any]]) -> int:
    """Writes the step's dataset, `train.parquet`, on the main process, and returns the number of its rows.

    The other ranks go through the rows too: what a stage counts on the way is counted everywhere.

    Dictionaries with different keys, such as the parameters of two tools, stay as they are: a chat template would
    render a key that another row has, and null in this one. Raises RecipeError where there are no rows: the steps
    after this one could only say so of a file that is not theirs.
    """
    return write_batches(step, _batches(rows))


def write_batches(step: Step, batches: Iterable[Dataset]) -> int:
    """Writes the step's dataset as `write_rows` does, of rows that come in batches."""
    from accelerate import PartialState

    distributed, count = PartialState(), 0
    with Writer(step.output / "train.parquet") as writer:
        for batch in batches:
            count += len(batch)
            if distributed.is_main_process:
                writer.add(batch)
    if not count:
        raise RecipeError(f"{step.name} leaves no rows: everything that it was given was left out", step.path)
    distributed.wait_for_everyone()
    return count


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """Writes rows that are in memory as a file of their own, of an artifact with several."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


class Writer:
    """A Parquet file whose rows come in batches, the types of which are known only when all have been seen.

    They are those that `Dataset.from_list` gives all rows together: nulls take the type of what comes later, and
    values that have not the same keys or types are kept as JSON. Rows that were written before are written again then.
    """

    def __init__(self, path: Path):
        self.path = path
        self.features: Features | None = None
        self.file: Any = None
        self.waiting: list[pa.Table] = []
        self.size = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if self.waiting and kind is None:
            self._flush()
        if self.file is not None:
            self.file.close()

    def add(self, batch: Dataset) -> None:
        """Adds the rows of a batch."""
        features = batch.features if self.features is None else _merged_features(self.features, batch.features)
        if self.features is not None and features != self.features:
            self._begin_again(features)
        self.features = features
        self._put(batch)

    def _put(self, batch: Dataset) -> None:
        from datasets import Dataset

        if batch.features != self.features:
            batch = Dataset.from_list(batch.to_list(), features=self.features)
        about = batch.features.arrow_schema.metadata  # and not where the rows were read from
        self.waiting.append(batch.with_format("arrow")[:].replace_schema_metadata(about))
        self.size += self.waiting[-1].nbytes
        if self.size > GROUP:
            self._flush()

    def _flush(self) -> None:
        """Writes what waits as one row group."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.concat_tables(self.waiting).combine_chunks()
        self.file = self.file or pq.ParquetWriter(self.path, table.schema)
        self.file.write_table(table)
        self.waiting, self.size = [], 0

    def _begin_again(self, features: Features) -> None:
        """Gives the rows that are there already other types."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        from datasets import Dataset

        written, waiting = self.path.with_suffix(".earlier"), self.waiting
        self.features, self.waiting, self.size = features, [], 0
        if self.file is not None:
            self.file.close()
            self.path.rename(written)
            self.file = None
            for batch in pq.ParquetFile(written).iter_batches(BATCH):
                self._put(Dataset(pa.Table.from_batches([batch])))
            written.unlink()
        for table in waiting:
            self._put(Dataset(table))


def _batches(rows: Dataset | Iterable[dict[str, Any]]) -> Iterator[Dataset]:
    """The rows in batches, with the types that each has alone."""
    from datasets import Dataset

    if isinstance(rows, Dataset):
        for start in range(0, len(rows), BATCH):
            yield rows.select(range(start, min(start + BATCH, len(rows))))
        return
    remaining = iter(rows)
    columns: list[str] = []
    while batch := list(islice(remaining, BATCH)):
        columns = columns or list(batch[0])
        yield Dataset.from_list([{key: row.get(key) for key in columns} for row in batch], on_mixed_types="use_json")


def _merged_features(one: Features, other: Features) -> Features:
    from datasets import Features

    return Features({name: merged(one[name], other[name]) for name in one})


def merged(one: Any, other: Any) -> Any:
    """The type of values of two types, as `Dataset.from_list` finds it for values that are mixed."""
    from datasets import Json, List, Value

    null, numbers = Value("null"), (Value("int64"), Value("float64"))
    if one == other or other == null:
        return one
    if one == null:
        return other
    if one in numbers and other in numbers:
        return Value("float64")
    if isinstance(one, List) and isinstance(other, List):
        return List(merged(one.feature, other.feature))
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return {key: merged(one[key], other[key]) for key in one}
    return Json()
