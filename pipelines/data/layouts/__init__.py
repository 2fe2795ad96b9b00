"""Layouts: how the rows of published datasets become rows that stages read. A new one is one new file here.

    data: {path: conversations.jsonl, layout: sharegpt}
    data: {path: pairs.jsonl, layout: {kind: pku_saferlhf, question: safer}}

The word is the file's name, the class its CamelCase, the fields of the dataclass its options in YAML. What a layout is
stands in its class: the columns by which it knows its rows, the columns that it gives, why it leaves rows out, and how
one row becomes rows. Other columns are kept as they are. No other file knows it by its word.

Layouts with `unasked` are used without a word, on the rows that need them: those lose nothing and leave no choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trimtab.pipelines.planning import kinds, schema
from trimtab.pipelines.planning.errors import RecipeError

if TYPE_CHECKING:
    from datasets import Dataset, Features

Row = dict[str, Any]
MESSAGES, LISTS, TEXT, NUMBER, FLAG = "messages", "lists of messages", "text", "number", "true or false"


class Dropped(Exception):
    """Raised by `Layout.convert` for a row that is left out; the reason is a key of the layout's `drops`."""


@dataclass(kw_only=True)
class Layout:
    """A layout of rows. A subclass says what follows, and has a method `convert`."""

    title: ClassVar[str]  # whose rows they are, in a message: "ShareGPT's"
    columns: ClassVar[tuple[tuple[str, ...], ...]]  # sets of columns; rows of the layout have one of these
    drops: ClassVar[Mapping[str, str]] = {}  # why rows are left out: the name of the count, and a sentence
    unasked: ClassVar[bool] = False  # whether it is used without a word in the recipe
    group: ClassVar[str | None] = None  # rows with the same value here are converted together
    refusal: ClassVar[str | None] = None  # of rows that nothing here is trained on: the sentence that says so

    @classmethod
    def fits(cls, features: Features, first: Row) -> bool:
        """Whether rows with these features, of which `first` is the first, have this layout."""
        return any(set(wanted) <= set(features) for wanted in cls.columns)

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        """The columns that are converted, and so not kept, of a dataset with columns `names`."""
        return next((wanted for wanted in self.columns if set(wanted) <= set(names)), ())

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        """The columns of converted rows with their types (MESSAGES, TEXT ...), of a dataset with columns `names`."""
        raise NotImplementedError

    def features(self, rows: Dataset) -> dict[str, Any]:
        """The same types as datasets knows them."""
        return {name: feature(kind) for name, kind in self.gives(rows.column_names).items()}

    def convert(self, row: Row) -> Iterable[Row]:
        """The rows that a row becomes: most often one. With `group` its cells are lists, those of the group's rows.

        Raises Dropped for a row that is left out, and ValueError for one that has not this layout.
        """
        raise NotImplementedError


def block(value: Any, path: Sequence[str]) -> dict[str, Any] | None:
    """The layout of a recipe, a word or a block with `kind`, as a checked block. Raises RecipeError."""
    if value is None:
        return None
    options = dict(value) if isinstance(value, Mapping) else {"kind": value}
    if "kind" not in options:
        known = ", ".join(kinds.words(kinds.LAYOUTS))
        raise RecipeError(f"expected a word or a block with a `kind` (one of {known}), got {value!r}", path)
    word = options.pop("kind")
    if kinds.is_withheld(kinds.LAYOUTS, word):
        kinds.look(kinds.LAYOUTS, word, path)
        return {"kind": word, **options}
    cls = kinds.find(kinds.LAYOUTS, word, path)
    options = schema.check(cls, options, path)
    schema.build(cls, options, path)
    return {"kind": word, **options}


def make(checked: Mapping[str, Any]) -> Layout:
    """The layout of a block that `block` has returned."""
    options = {key: value for key, value in checked.items() if key != "kind"}
    return schema.instance(kinds.find(kinds.LAYOUTS, checked["kind"]), options)


def classes() -> dict[str, type[Layout]]:
    """Every layout of Trimtab's own, by its word."""
    return {word: kinds.find(kinds.LAYOUTS, word) for word in kinds.words(kinds.LAYOUTS)}


def feature(kind: str) -> Any:
    """A type of `Layout.gives` as datasets knows it."""
    from datasets import List, Value

    messages = List({"role": Value("string"), "content": Value("string")})
    return {
        MESSAGES: messages,
        LISTS: List(messages),
        TEXT: Value("string"),
        NUMBER: Value("float64"),
        FLAG: Value("bool"),
    }[kind]


def lists(cell: Any, *keys: str) -> bool:
    """Whether a cell is a list of mappings with these keys."""
    return isinstance(cell, list) and bool(cell) and isinstance(cell[0], Mapping) and set(keys) <= set(cell[0])


def message(role: str, content: str) -> dict[str, str]:
    """One message of a conversation."""
    return {"role": role, "content": content}
