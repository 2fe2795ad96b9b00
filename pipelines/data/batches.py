"""A layout at work on batches of rows: Arrow in and out, since Python sees only the columns that are converted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.data.layouts import Dropped, Layout, Row

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features

REASON = "_dropped"  # a column of converted rows while they are made: why a row is left out
WRONG = (AttributeError, LookupError, TypeError, ValueError)  # what a row that has not the layout leads to


class Malformed(Exception):
    """A row that has not the layout: its number, and what is wrong."""


@dataclass(frozen=True)
class Batches:
    """Converts the tables that `Dataset.map` gives it, from features `source` to `target`.

    `kept` are the columns that stay, `given` those that the layout gives. `version` is of the layout's code, and there
    for the cache, which knows a conversion by its arguments.
    """

    layout: Layout
    source: Features
    target: Features
    kept: list[str]
    given: list[str]
    version: str | None

    def __call__(self, table: pa.Table, numbers: list[int]) -> pa.Table:
        """The converted rows of a batch. Raises Malformed with the number of the row."""
        import pyarrow as pa
        from datasets.table import cast_table_to_features

        places, reasons, cells = [], [], []
        for place, row in self._rows(table):
            for reason, new in self._converted(row, numbers[place]):
                places.append(place)
                reasons.append(reason)
                cells.append(new)
        numbers = [numbers[place] for place in places]
        columns = {name: table[name].take(pa.array(places, pa.int64())) for name in self.kept}
        columns |= {name: self._column(name, cells, numbers) for name in self.given}
        return cast_table_to_features(pa.table({**columns, REASON: pa.array(reasons, pa.string())}), self.target)

    def _converted(self, row: Row, number: int) -> list[tuple[str | None, Row]]:
        """(why it is left out, or None; the new cells) of every row that a row becomes."""
        try:
            return [(None, new) for new in self.layout.convert(row)]
        except Dropped as dropped:
            return [(str(dropped), {})]
        except WRONG as error:
            raise Malformed(number, f"{type(error).__name__}: {error}") from error

    def _rows(self, table: pa.Table) -> Iterator[tuple[int, Row]]:
        """(place, row) in a batch; with `group`, the first place and the rows of each group as one row of lists."""
        names = self._needed(table.column_names)
        columns = self.source.decode_batch({name: table[name].to_pylist() for name in names})
        if self.layout.group is None:
            for place, cells in enumerate(zip(*columns.values(), strict=True)):
                yield place, dict(zip(names, cells, strict=True))
            return
        for _, places in groupby(range(table.num_rows), key=columns[self.layout.group].__getitem__):
            first, *others = places
            yield first, {name: cells[first : first + 1 + len(others)] for name, cells in columns.items()}

    def _needed(self, names: list[str]) -> list[str]:
        of_layout = next((columns for columns in self.layout.columns if set(columns) <= set(names)), ())
        group = () if self.layout.group is None else (self.layout.group,)
        return list(dict.fromkeys([*of_layout, *self.layout.reads(names), *group]))

    def _column(self, name: str, cells: list[Row], numbers: list[int]) -> pa.Array:
        """One column of new cells. Raises Malformed with the number of the first that is not of its type."""
        import pyarrow as pa

        values = [row.get(name) for row in cells]
        if _holds_json(self.target[name]):
            return pa.array(self.target.encode_column(values, name))
        kind = self.target.arrow_schema.field(name).type
        try:
            return pa.array(values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            for number, value in zip(numbers, values, strict=True):
                try:
                    pa.array([value], kind)
                except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                    raise Malformed(number, f"{name}: {error}") from error
            raise


def _holds_json(feature: Any) -> bool:
    """Whether some value of this type is kept as JSON, since values differ in their keys."""
    from datasets import Json, List

    if isinstance(feature, List):
        return _holds_json(feature.feature)
    if isinstance(feature, Mapping):
        return any(map(_holds_json, feature.values()))
    return isinstance(feature, Json)
