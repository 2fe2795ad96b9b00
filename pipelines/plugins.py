"""A word in a recipe becomes a class, and a YAML block becomes an instance of it.

The word is the file name: `kind: dpo` is class `Dpo` in `pipelines/stages/dpo.py`, `kind: length` is class `Length`
in `rewards/length.py`, and a dotted word is any importable class or function (`my_team.rewards.politeness`). There is
no registry. The dataclass's fields are the YAML keys; unknown keys and wrong types are errors that name the place. A
field of type `Reward` takes a reward's block.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import inspect
import os
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines import found
from pipelines.errors import OWNED, RENAMED, RecipeError, suggest
from rewards import Reward


def find(package: str, word: str, path: Sequence[str] = ()) -> Any:
    """The class or function that `word` names in `package` ("pipelines.stages" or "rewards").

    Raises RecipeError when there is none.
    """
    if not isinstance(word, str) or not word:
        raise RecipeError(f"expected a word, got {word!r}", path)
    module, _, name = word.rpartition(".") if "." in word else (f"{package}.{word}", "", _camel(word))
    if "." in word and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as trl does for reward functions: a file beside the recipe can be named
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise  # the module exists and misses a package of its own
        known = words(package)
        raise RecipeError(f"unknown kind {word!r}{suggest(word, known)} (known: {', '.join(known)})", path) from None
    except AttributeError:
        raise RecipeError(f"module {module} has no {name!r}", path) from None


def words(package: str) -> list[str]:
    """Every word that `find` knows in `package`: its files, but for those with a leading underscore."""
    folder = Path(importlib.import_module(package).__file__).parent
    names = (module.name for module in pkgutil.iter_modules([str(folder)]))
    return sorted(name for name in names if not name.startswith("_"))


def load(package: str, block: Mapping[str, Any], path: Sequence[str] | str = ()) -> Any:
    """An instance of the class (or the function) that a `{kind: word, **options}` block names.

    A function with options becomes a partial of it.
    """
    path = (path,) if isinstance(path, str) else path
    options = check_block(package, {key: value for key, value in block.items() if key not in POLICY}, path)
    target = find(package, options.pop("kind"), path)
    if dataclasses.is_dataclass(target):
        return instance(target, options)
    if inspect.isclass(target):
        return target(**options)
    return functools.partial(target, **options) if options else target


def check_block(package: str, block: Any, path: Sequence[str]) -> dict[str, Any]:
    """The block with its options checked against the class that its `kind` names.

    A reward that is a dataclass is also constructed, which is cheap and checks the values.
    """
    if not isinstance(block, Mapping) or "kind" not in block:
        raise RecipeError(f"expected a block with a `kind` (one of {', '.join(words(package))}), got {block!r}", path)
    options = {key: value for key, value in block.items() if key != "kind"}
    target = find(package, block["kind"], (*path, "kind"))
    if dataclasses.is_dataclass(target):
        options = check(target, options, path)
        if package == "rewards":
            build(target, options, path)
    return {"kind": block["kind"], **options}


def _reward(block: Any, path: Sequence[str], keys: Mapping[str, Any] | None = None) -> dict[str, Any]:
    keys = keys or POLICY
    own = {key: block[key] for key in keys if isinstance(block, Mapping) and key in block}
    own = {key: coerce(value, keys[key], (*path, key)) for key, value in own.items()}
    rest = {key: value for key, value in block.items() if key not in own} if own else block
    try:
        return {**check_block("rewards", rest, path), **own}
    except RecipeError as error:  # perhaps a caller's key was meant
        meant = suggest(error.path[-1], keys) if error.message.startswith("unknown key") else ""
        if not meant or "did you" in error.message:
            raise
        raise RecipeError(error.message + meant, error.path) from None


# The keys of a reward's block that are its caller's: what a failed completion means, and the share of all completions
# that may fail before the step stops anyway.
POLICY = {"on_failure": typing.Literal["stop", "abstain", "skip_group"], "max_failures": float}
MAX_FAILURES = 0.05
# those of a reward that is trained on: its threshold, what that means, and its weight in the task
CONSTRAINT = {
    "threshold": typing.Annotated[float | None, found.threshold],
    "constraint": typing.Literal["at_least", "at_most", "equal"],
    "weight": float,
}
# the types of a stage's field that holds a `{kind: ..., **options}` reward
RewardBlock = typing.Annotated[dict, _reward]
ConstrainedReward = typing.Annotated[dict, functools.partial(_reward, keys=POLICY | CONSTRAINT)]


def check(cls: type, mapping: Any, path: Sequence[str] = (), owned: Mapping[str, str] = types.MappingProxyType({})):
    """`mapping` with every value coerced to the type of the dataclass's field, recursively. Constructs nothing.

    `owned` names the keys that the pipeline sets itself, with the reason. Raises RecipeError for an unknown, missing,
    owned or mistyped key.
    """
    if not isinstance(mapping, Mapping):
        raise RecipeError(f"expected a mapping of {cls.__name__}'s keys, got {mapping!r}", path)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    annotations = hints(cls)
    checked = {}
    for key, value in mapping.items():
        place = (*path, str(key))
        if key in owned and key in fields:
            raise RecipeError(f"not a key of a recipe: {owned[key]}", place)
        if key not in fields:
            hint = f": {RENAMED[key]}" if key in RENAMED else suggest(key, fields)
            raise RecipeError(f"unknown key for {cls.__name__}{hint}", place)
        checked[key] = coerce(value, annotations[key], place)
        choices = fields[key].metadata.get("choices")
        if choices and checked[key] is not None and checked[key] not in choices:
            raise RecipeError(f"expected one of {', '.join(map(str, choices))}, got {value!r}", place)
    for name, field in fields.items():
        if field.default is field.default_factory is dataclasses.MISSING and name not in checked:
            raise RecipeError("required key is missing", (*path, name))
    return checked


def coerce(value: Any, hint: Any, path: Sequence[str]) -> Any:
    """`value` as the annotated type `hint`, or RecipeError. A number written as a string is read as a number."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        for convert in hint.__metadata__:
            value = convert(value, path) if isinstance(convert, Callable) else value
        return coerce(value, arguments[0], path)
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, arguments, hint, path)
    if origin is typing.Literal:
        if value in arguments:
            return value
    elif hint in (type(None), None):
        if value is None:
            return value
    elif hint is bool:
        if isinstance(value, bool):
            return value
    elif hint in (int, float):
        number = _number(value, hint)
        if number is not None:
            return number
    elif hint is str:
        if isinstance(value, str):
            return value
    elif hint is Path:
        if isinstance(value, str | Path):
            return Path(value)
    elif inspect.isclass(hint) and issubclass(hint, enum.Enum):
        if value in [member.value for member in hint]:
            return value
        raise RecipeError(f"expected one of {', '.join(str(m.value) for m in hint)}, got {value!r}", path)
    elif hint in (list, tuple) or origin in (list, tuple, Sequence):
        element = next((argument for argument in arguments if argument is not ...), Any)
        # trl's own parser takes `loss_type: sigmoid` for a list of one
        values = value if isinstance(value, list | tuple) else [value]
        if not isinstance(value, Mapping) and value is not None:
            return [coerce(item, element, (*path, str(i))) for i, item in enumerate(values)]
    elif hint is dict or origin in (dict, Mapping):
        if isinstance(value, Mapping):
            element = arguments[1] if len(arguments) == 2 else Any
            return {key: coerce(item, element, (*path, str(key))) for key, item in value.items()}
    elif hint is Reward:
        return check_block("rewards", value, path)
    elif dataclasses.is_dataclass(hint):
        owned = OWNED if hasattr(hint, "resume_from_checkpoint") else {}  # a transformers.TrainingArguments
        checked = check(hint, value, path, owned)
        if hint.__module__.startswith("pipelines."):
            build(hint, checked, path)  # cheap, and its own check of its values names this place
        return checked
    else:
        return value
    raise RecipeError(f"expected {_describe(hint)}, got {value!r}", path)


def build(cls: type, mapping: Mapping[str, Any], path: Sequence[str] = (), *, dry: bool = False) -> Any:
    """An instance of dataclass `cls`. With `dry`, training arguments stay a plain namespace of defaults and values:

    constructing a `TrainingArguments` initialises devices and process groups, which a check must not do.
    """
    try:
        return instance(cls, check(cls, mapping, path), dry=dry)
    except ValueError as error:  # the class's own check of its values
        raise RecipeError(str(error), path) from error


def hints(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass, as types."""
    return typing.get_type_hints(cls, include_extras=True)


def bare(hint: Any) -> Any:
    """The type of an annotation without `Annotated` and without `| None`."""
    if typing.get_origin(hint) is typing.Annotated:
        return bare(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        return bare(rest[0]) if len(rest) == 1 else hint
    return hint


def instance(cls: type, checked: Mapping[str, Any], *, dry: bool = False) -> Any:
    """An instance of `cls` from a mapping that `check` has returned."""
    annotations = hints(cls)
    values = {key: _instances(value, annotations[key], dry) for key, value in checked.items()}
    if dry and hasattr(cls, "resume_from_checkpoint"):
        return types.SimpleNamespace(**{f.name: default(f) for f in dataclasses.fields(cls)} | values)
    return cls(**values)


def _instances(value: Any, hint: Any, dry: bool) -> Any:
    hint = bare(hint)
    if hint is Reward and isinstance(value, Mapping):
        return load("rewards", value)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return instance(hint, value, dry=dry)
    if typing.get_origin(hint) is dict and isinstance(value, Mapping):
        return {key: _instances(item, typing.get_args(hint)[1], dry) for key, item in value.items()}
    if typing.get_origin(hint) is list and isinstance(value, list):
        return [_instances(item, typing.get_args(hint)[0], dry) for item in value]
    return value


def default(field: dataclasses.Field) -> Any:
    """The default of a dataclass's field, None when it is required."""
    if field.default is field.default_factory is dataclasses.MISSING:
        return None
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _camel(word: str) -> str:
    return "".join(part.capitalize() for part in word.split("_"))


def _number(value: Any, kind: type) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if kind is int:
        return int(number) if number.is_integer() else None
    return number


def _one_of(value: Any, arguments: tuple, hint: Any, path: Sequence[str]) -> Any:
    for exact in arguments:  # `int | str` must leave "1" alone, `float | None` must read "1e-6"
        if inspect.isclass(exact) and type(value) is exact:
            return coerce(value, exact, path)
    blocks = [argument for argument in arguments if dataclasses.is_dataclass(argument)]
    if len(blocks) == 1 and isinstance(value, Mapping):
        return coerce(value, blocks[0], path)  # whose own complaint is the one to hear
    problem = None
    for argument in sorted(arguments, key=lambda a: a is str):
        try:
            return coerce(value, argument, path)
        except RecipeError as error:
            problem = error if len(error.path) > len(path) or problem is None else problem
    if problem is not None and (len(problem.path) > len(path) or "one of" in problem.message):
        raise problem
    raise RecipeError(f"expected {_describe(hint)}, got {value!r}", path)


def _describe(hint: Any) -> str:
    plain = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", type(None): "null"}
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is list:
        return f"a list of {_describe(typing.get_args(hint)[0])}"
    return plain.get(hint, "a mapping" if hint is dict else getattr(hint, "__name__", str(hint)))
