"""What the annotations of a dataclass say, and the notes that a stage can put into them with `Annotated`."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trimtab.pipelines.planning import upstream
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.kinds import words


@dataclasses.dataclass(frozen=True)
class KeysOf:
    """An annotation of a mapping that a macro hands on: it takes the keys of classes of trl, or of a stage."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return " or ".join(f"`{name}`" for name in self.names)

    @property
    def types(self) -> list[Any]:
        import trl

        return [getattr(trl, name.removeprefix("trl.")) for name in self.names if name.startswith("trl.")]

    @property
    def has_training(self) -> bool:
        """Whether a class of trl among them is one of training arguments."""
        of_trl = [name.removeprefix("trl.") for name in self.names if name.startswith("trl.")]
        return any(is_training_arguments(upstream.outline(name)) for name in of_trl)


@dataclasses.dataclass(frozen=True)
class NamesModel:
    """An annotation: the string is a model's folder, its name on the Hub, or a reference to a stage that makes one."""


ModelName = typing.Annotated[str, NamesModel()]


@dataclasses.dataclass(frozen=True)
class WordOf:
    """An annotation: the value is the name of a file in `package`, or one that `others` gives."""

    package: str
    others: Callable[[], Sequence[str]] = tuple

    @property
    def words(self) -> list[str]:
        return list(dict.fromkeys([*words(self.package), *self.others()]))

    def __call__(self, value: Any, path: Sequence[str]) -> Any:
        if value not in words(self.package) and value not in self.others():
            known = ", ".join(self.words)
            raise RecipeError(f"expected one of {known}, got {value!r}{suggest(value, self.words)}", path)
        return value


def documented_values(cls: Any, name: str) -> list[str]:
    """The words that upstream's own help gives for a key, where its dataclass lists no choices: "'a', 'b' and 'c'"."""
    text = str(cls.__dataclass_fields__[name].metadata.get("help", ""))
    listed = re.search(r"(?:Possible|Supported) values are:?(.+?)\.(?: |$)", text)
    return re.findall(r"'(\w+)'", listed[1]) if listed else []


_imported: contextvars.ContextVar[bool] = contextvars.ContextVar("imported", default=False)


@contextlib.contextmanager
def imported() -> Iterator[None]:
    """Inside, annotations name trl's own classes, as what is constructed needs them, in the place of outlines."""
    token = _imported.set(True)
    try:
        yield
    finally:
        _imported.reset(token)


def hints(cls: Any) -> Mapping[str, Any]:
    """The annotations of a dataclass, as types; trl's classes by their outlines, without an import of torch."""
    return _hints(cls, _imported.get())


@functools.cache
def _hints(cls: Any, of_trl_itself: bool) -> Mapping[str, Any]:
    names = None if of_trl_itself else {"trl": upstream.Outlines()}
    return types.MappingProxyType(typing.get_type_hints(cls, localns=names, include_extras=True))


def bare(hint: Any) -> Any:
    """The type of an annotation without `Annotated` and without `| None`."""
    if typing.get_origin(hint) is typing.Annotated:
        return bare(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        return bare(rest[0]) if len(rest) == 1 else hint
    return hint


def notes(hint: Any) -> tuple[Any, ...]:
    """What stands in the `Annotated`s of an annotation, also inside `X | None` and containers."""
    metadata = getattr(hint, "__metadata__", ())
    inner = [notes(argument) for argument in typing.get_args(hint) if not isinstance(argument, str | int)]
    return tuple(metadata) + tuple(note for group in inner for note in group)


def is_training_arguments(hint: Any) -> bool:
    """Whether a type is one of the Trainer's configurations: trl.SFTConfig and its like."""
    return dataclasses.is_dataclass(hint) and "resume_from_checkpoint" in hint.__dataclass_fields__


@functools.cache
def training(cls: Any) -> str | None:
    """The name of a stage's field of training arguments; None where a stage has none."""
    return next((key for key, hint in hints(cls).items() if is_training_arguments(bare(hint))), None)


@functools.cache
def training_defaults(cls: Any) -> dict[str, Any]:
    """The defaults of the training arguments of a stage that has some, as upstream's source gives them."""
    arguments = bare(hints(cls)[training(cls) or ""])
    return {field.name: default(field) for field in dataclasses.fields(arguments)}


@functools.cache
def trains(cls: Any) -> bool:
    """Whether a stage trains: it takes training arguments, or is a macro that hands them on."""
    handed_on = [note for hint in hints(cls).values() for note in notes(hint) if isinstance(note, KeysOf)]
    return training(cls) is not None or any(note.has_training for note in handed_on)


def is_required(field: dataclasses.Field) -> bool:
    """Whether a field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def default(field: dataclasses.Field) -> Any:
    """The default of a dataclass's field, None when it is required."""
    if is_required(field):
        return None
    return field.default_factory() if field.default is dataclasses.MISSING else field.default  # type: ignore[operator]
