"""`filter:` of a dataset: a condition on the columns of a row, in a small part of Python's syntax.

    filter: score >= 4 and lang == "en"
    filter: label in ["safe", "mild"] and not (source == "web" or meta.rating is None)
    filter: '"refuse" not in answer and len(answer) > 20 and chosen_score - rejected_score > 0.5'
    filter: {lang: en, source: [web, books]}                # every column has that value, or one of these

Nothing is evaluated by Python: the condition becomes one of Arrow's, which is computed over whole columns. A condition
on a null is not fulfilled, so such rows are left out; `column is None` asks for them.
"""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning.errors import RecipeError, suggest

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

BATCH = 10_000  # rows that are in memory at a time
COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
COMPUTED = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide"}


class Unclear(ValueError):
    """A part of a condition that is none of the language."""


def checked(value: Any, path: Sequence[str]) -> Any:
    """The condition as it was written. Raises RecipeError for one that is none of the language."""
    if isinstance(value, str):
        try:
            _Condition(None).of(value)
        except Unclear as error:
            raise RecipeError(f"{value!r}: {error}", path) from error
    return value


def filtered(rows: Dataset, condition: str | Mapping[str, Any], source: str, path: Sequence[str]) -> Dataset:
    """The rows that a condition holds for, in their order. Raises RecipeError where it makes no sense of them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.dataset as arrow

    place = (*path, "filter")
    kept, start = [np.zeros(0, dtype=np.int64)], 0
    try:
        for table in rows.with_format("arrow").iter(BATCH):
            test = _Condition(table.schema).of(condition)
            holds = arrow.dataset(table).to_table(columns={"holds": test})["holds"]
            if not pa.types.is_boolean(holds.type):
                raise Unclear(f"it is {holds.type} for every row, and not true or false")
            kept.append(np.flatnonzero(holds.fill_null(False).to_numpy()) + start)
            start += table.num_rows
    except (Unclear, pa.ArrowException, TypeError) as error:
        raise RecipeError(f"{condition!r} on {source}: {error}", place) from error
    numbers = np.concatenate(kept)
    if len(rows) and not len(numbers):
        raise RecipeError(f"{condition!r} holds for none of {len(rows)} rows of {source}", place)
    return rows.select(numbers)


class _Condition:
    """Turns a condition into Arrow's; without a schema it is only looked at, so that a recipe can be checked."""

    def __init__(self, schema: pa.Schema | None):
        self.schema = schema

    def of(self, condition: str | Mapping[str, Any]) -> Any:
        if isinstance(condition, Mapping):
            return self._mapping(condition)
        try:
            return self._of(ast.parse(condition.strip(), mode="eval").body)
        except (SyntaxError, RecursionError) as error:
            raise Unclear(f'not a condition such as `score >= 4 and lang == "en"` ({error})') from error

    def _mapping(self, condition: Mapping[str, Any]) -> Any:
        tests = []
        for name, value in condition.items():
            column = self._column(str(name).split("."))
            tests.append(column.isin(value if isinstance(value, list) else [value]))
        return functools.reduce(operator.and_, tests)

    def _of(self, node: ast.expr) -> Any:
        """Any part of a condition."""
        import pyarrow.compute as pc

        match node:
            case ast.BoolOp(op=op, values=values):
                joined = operator.and_ if isinstance(op, ast.And) else operator.or_
                return functools.reduce(joined, map(self._of, values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self._of(operand)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return pc.scalar(-number)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in COMPUTED:
                return getattr(pc, COMPUTED[type(op)])(self._of(left), self._of(right))
            case ast.Compare(left=left, ops=tests, comparators=values):
                return functools.reduce(operator.and_, map(self._compared, [left, *values], tests, values))
            case ast.Call(func=ast.Name(id="len"), args=[column], keywords=[]):
                return self._length(column)
            case ast.Constant(value=str() | int() | float() | bool() as value):
                return pc.scalar(value)
            case ast.Name() | ast.Attribute():
                return self._column(_names(node))
        raise Unclear(
            f"`{ast.unparse(node)}` is none of: columns, texts, numbers, lists, comparisons, `in`, `and`, `or`, "
            "`not`, + - * /, len(column), `is None`"
        )

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Any:
        import pyarrow.compute as pc

        if type(op) in COMPARED:
            return COMPARED[type(op)](self._of(left), self._of(right))
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise Unclear(f"`is` asks for None alone: write `==` before {ast.unparse(right)}")
            test = self._of(left).is_null()
            return test if isinstance(op, ast.Is) else ~test
        if isinstance(right, ast.List | ast.Tuple):
            test = self._of(left).isin([_literal(item) for item in right.elts])
        elif isinstance(left, ast.Constant) and isinstance(left.value, str):
            test = pc.match_substring(self._of(right), left.value)
        else:
            raise Unclear(f"`in` wants a list behind it, or a text before it, in `{ast.unparse(left)} in ...`")
        return test if isinstance(op, ast.In) else ~test

    def _length(self, node: ast.expr) -> Any:
        """Characters of a text, or items of a list."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self._of(node)
        kind = self._type(_names(node))
        is_list = kind is not None and (pa.types.is_list(kind) or pa.types.is_large_list(kind))
        return pc.list_value_length(column) if is_list else pc.utf8_length(column)

    def _column(self, names: list[str]) -> Any:
        import pyarrow.compute as pc

        self._type(names)
        return pc.field(*names)

    def _type(self, names: list[str]) -> pa.DataType | None:
        """The type of a column. Raises Unclear where the rows have none of its name."""
        if self.schema is None:
            return None
        kind: Any = self.schema
        for name in names:
            fields = [field.name for field in kind] if hasattr(kind, "__iter__") else []
            if name not in fields:
                there = f"it has: {', '.join(fields)}" if fields else "it has no parts"
                raise Unclear(f"no column {'.'.join(names)!r}{suggest(name, fields)} ({there})")
            kind = kind.field(name)
            kind = kind.type
        return kind


def _names(node: ast.expr) -> list[str]:
    """The parts of a column's name: `meta.rating` is a part of the column `meta`."""
    match node:
        case ast.Name(id=name):
            return [name]
        case ast.Attribute(value=whole, attr=name):
            return [*_names(whole), name]
    raise Unclear(f"`{ast.unparse(node)}` is no column")


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise Unclear(f"`{ast.unparse(node)}` in a list is neither a text nor a number") from error
