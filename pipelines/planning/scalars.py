"""One value of a recipe as the type of its key: a number, a word, true or false, a path."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.yaml_words import Word

PLAIN = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", type(None): "null"}


def scalar(value: Any, hint: Any, path: Sequence[str]) -> Any:
    """The value as a type without parts, or RecipeError. A number written as a string is read as a number."""
    if hint in (int, float):
        number = _number(value, hint)
        if number is not None:
            return number
    elif typing.get_origin(hint) is typing.Literal:
        if value in typing.get_args(hint):
            return _plain(value)
    elif hint in (bool, str) and isinstance(value, Word):
        return hint(value)
    elif hint is Path:
        if isinstance(value, str | Path):
            return Path(value)
    elif hint in (type(None), None):
        if value is None:
            return value
    elif hint not in (bool, str) or isinstance(value, hint):
        return value
    cure = ": put it in quotes" if hint is str and isinstance(value, int | float) else ""
    raise RecipeError(f"expected {describe(hint)}, got {value!r}{cure}", path)


def member(value: Any, hint: Any, path: Sequence[str]) -> Any:
    """The word of a member of the enumeration `hint`, or RecipeError."""
    words = [str(member.value) for member in hint]
    if value in words:
        return _plain(value)
    near = suggest(value, words) if isinstance(value, str) else ""
    raise RecipeError(f"expected one of {', '.join(words)}, got {value!r}{near}", path)


def describe(hint: Any) -> str:
    """A type in the words of an error message."""
    hint = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if hint is list or origin is list:
        return f"a list of {describe(arguments[0])}" if arguments else "a list"
    if hint is dict or origin is dict:
        return "a mapping"
    return PLAIN.get(hint) or str(getattr(hint, "__name__", hint))


def _plain(value: Any) -> Any:
    """The word that a `no` or `off` is, where a word is expected."""
    return str(value) if isinstance(value, Word) else value


def _number(value: Any, kind: type) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if kind is int:
        return int(number) if number.is_integer() else None
    return None if isinstance(value, str) and math.isnan(number) else number
