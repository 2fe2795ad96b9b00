"""Rows of one prompt together, wherever they stand in a file, while only a few of them are in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

BATCH = 1000  # rows that are in memory at a time


def records(rows: Dataset, columns: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The rows, with those of the columns that they have."""
    kept = rows.select_columns([name for name in columns if name in rows.column_names])
    for batch in kept.iter(BATCH):
        for cells in zip(*batch.values(), strict=True):
            yield dict(zip(batch, cells, strict=True))


@dataclass(frozen=True)
class Groups:
    """Numbers of rows, group after group, and where each group ends: at most 16 bytes a row."""

    order: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def sizes(self) -> np.ndarray:
        """The number of rows of each group."""
        import numpy as np

        return np.diff(self.ends, prepend=0)

    def rows(self, rows: Dataset, columns: Iterable[str]) -> Iterator[list[dict[str, Any]]]:
        """The rows of each group."""
        ordered = records(rows.select(self.order), columns)
        for size in self.sizes:
            yield list(islice(ordered, int(size)))


def column(rows: Dataset, name: str) -> pa.ChunkedArray:
    """A column as it lies on the disk, with no object of Python for each value."""
    import pyarrow as pa

    return pa.chunked_array(rows.select_columns([name]).with_format("arrow")[:][name])


def by_column(rows: Dataset, name: str) -> Groups:
    """The rows by their value in a column, the values in the order in which they come first."""
    import numpy as np

    codes = column(rows, name).combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    return Groups(order, _ends(codes[order]))


def sorted_by(outer: np.ndarray, inner: np.ndarray) -> Groups:
    """The rows by the values of `outer`, in their order, and inside of a group in the order of `inner`."""
    import numpy as np

    order = np.lexsort((inner, outer))
    return Groups(order, _ends(outer[order]))


def _ends(ordered: np.ndarray) -> np.ndarray:
    """Where each run of equal values ends."""
    import numpy as np

    return np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [len(ordered)][: len(ordered)])
