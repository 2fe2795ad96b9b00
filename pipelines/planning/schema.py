"""A YAML block becomes an instance of a dataclass: its fields are the keys, their annotations the types.

Unknown keys and wrong types are errors that name the place. A field of type `Reward` takes a reward's block, and what
stands callable in an `Annotated` turns the value as it was written into the value that is checked.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trimtab.pipelines.planning import consent, field_types, outlines
from trimtab.pipelines.planning.errors import OWNED, RENAMED, Mistakes, RecipeError, nearest, suggest
from trimtab.pipelines.planning.kinds import REWARDS, find, is_withheld, look, words
from trimtab.pipelines.planning.scalars import describe, member, scalar
from trimtab.pipelines.planning.yaml_words import settled
from trimtab.rewards import Reward

Place = Sequence[str]


def load_reward(block: Mapping[str, Any], path: Place | str = ()) -> Any:
    """The reward that a `{kind: word, **options}` block names: an instance of its class, or a function.

    A function with options becomes a partial of it. Raises RecipeError for a block that is not right.
    """
    path = (path,) if isinstance(path, str) else path
    options = check_reward(block, path)
    consent.require(consent.code_in(options, path))
    target = find(REWARDS, options.pop("kind"), path)
    if dataclasses.is_dataclass(target):
        return instance(target, options)
    if inspect.isclass(target):
        return target(**options)
    return functools.partial(target, **options) if options else target


def check_reward(block: Any, path: Place) -> dict[str, Any]:
    """A reward's block with its options checked against the class that its `kind` names.

    A dataclass is also constructed, which is cheap and checks the values. Of code that nobody has consented to, only
    what can be seen without importing it is checked.
    """
    if not isinstance(block, Mapping) or "kind" not in block:
        raise RecipeError(f"expected a block with a `kind` (one of {', '.join(words(REWARDS))}), got {block!r}", path)
    options = {key: value for key, value in block.items() if key != "kind"}
    word, place = block["kind"], (*path, "kind")
    if is_withheld(REWARDS, word):
        look(REWARDS, word, place)
        return {"kind": word, **options}
    target = find(REWARDS, word, place)
    if "." in word:
        outlines.check_reward(target, word, place)
    if dataclasses.is_dataclass(target):
        options = check(target, options, path)
        consent.look(target, options, path)
        if not consent.withheld(consent.code_in(block, path)):
            build(target, options, path)
    return {"kind": block["kind"], **options}


def check(
    cls: Any, mapping: Any, path: Place = (), owned: Mapping[str, str] = types.MappingProxyType({})
) -> dict[str, Any]:
    """`mapping` with every value coerced to the type of the dataclass's field, recursively. Constructs nothing.

    `owned` names the keys that the pipeline sets itself, with the reason. Raises RecipeError for an unknown, missing,
    owned or mistyped key.
    """
    if not isinstance(mapping, Mapping):
        raise RecipeError(f"expected a mapping of {cls.__name__}'s keys, got {mapping!r}", path)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    types_of = field_types.hints(cls)
    checked: dict[str, Any] = {}
    mistakes = Mistakes()
    for key, value in mapping.items():
        place = (*path, str(key))
        with mistakes.collected():
            if key in owned and key in fields:
                raise RecipeError(f"not a key of a recipe: {owned[key]}", place)
            if key not in fields:
                hint = f": {RENAMED[key]}" if key in RENAMED else suggest(key, fields)
                raise RecipeError(f"unknown key for {cls.__name__}{hint}", place)
            checked[key] = coerce(value, types_of[key], place)
            _check_value(cls, fields[key], checked[key], place)
    misspelt = {nearest(key, fields) for key in mapping if key not in fields}
    for name, field in fields.items():
        if field_types.is_required(field) and name not in mapping and name not in misspelt:
            mistakes.add(RecipeError("required key is missing", (*path, name)))
    mistakes.raise_any()
    return checked


def as_written(cls: Any, mapping: Mapping[str, Any], path: Place) -> Any:
    """An instance of a macro's class from its block as it is written, with `$references` still in it.

    Required keys, plain types and defaults are those of the class's annotations. Blocks that the macro hands on to
    steps (data, rewards, models, training arguments) are taken as they are: the steps check them. Raises RecipeError.
    """
    types_of = field_types.hints(cls)
    values = {}
    mistakes = Mistakes()
    for field in dataclasses.fields(cls):
        with mistakes.collected():
            if field_types.is_required(field) and not mapping.get(field.name):
                raise RecipeError("required key is missing", (*path, field.name))
            if field.name in mapping:
                values[field.name] = coerce(mapping[field.name], _shape(types_of[field.name]), (*path, field.name))
    mistakes.raise_any()
    return cls(**values)


def sketch(cls: Any, mapping: Mapping[str, Any], path: Place) -> Any:
    """An instance of a stage's class with the keys that are right, and defaults, or nothing, for those that are not.

    It is good for one thing: to look at its data, while the mistakes in its keys wait to be told.
    """
    types_of = field_types.hints(cls)
    made = object.__new__(cls)
    for field in dataclasses.fields(cls):
        container = typing.get_origin(field_types.bare(types_of[field.name]))
        empty = container() if container in (dict, list) else None
        value = empty if field_types.is_required(field) else field_types.default(field)
        if field.name in mapping:
            with Mistakes().collected():
                checked = coerce(mapping[field.name], types_of[field.name], (*path, field.name))
                value = _instances(checked, types_of[field.name], dry=True)
        setattr(made, field.name, value)
    return made


def coerce(value: Any, hint: Any, path: Place) -> Any:
    """`value` as the annotated type `hint`, or RecipeError. A number written as a string is read as a number."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        for convert in hint.__metadata__:
            value = convert(value, path) if isinstance(convert, Callable) else value  # type: ignore[arg-type]
        return coerce(value, typing.get_args(hint)[0], path)
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, typing.get_args(hint), hint, path)
    if hint is Reward:
        return check_reward(value, path)
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return member(value, hint, path)
    if dataclasses.is_dataclass(hint):
        return _checked_block(value, hint, path)
    if hint in (list, tuple) or origin in (list, tuple, Sequence):
        return _list(value, hint, path)
    if hint is dict or origin in (dict, Mapping):
        return _mapping(value, hint, path)
    return scalar(value, hint, path)


def build(cls: Any, mapping: Mapping[str, Any], path: Place = (), *, dry: bool = False) -> Any:
    """An instance of the dataclass `cls`. Raises RecipeError, also for what the class itself refuses.

    With `dry`, training arguments stay a plain namespace of defaults and values: constructing a `TrainingArguments`
    initialises devices and process groups, which a check must not do.
    """
    try:
        return instance(cls, check(cls, mapping, path), dry=dry)
    except ValueError as error:  # the class's own check of its values
        raise RecipeError(str(error), path) from error


def instance(cls: Any, checked: Mapping[str, Any], *, dry: bool = False) -> Any:
    """An instance of `cls` from a mapping that `check` has returned."""
    types_of = field_types.hints(cls)
    values = {key: _instances(value, types_of[key], dry) for key, value in checked.items()}
    if dry and field_types.is_training_arguments(cls):
        defaults = {field.name: field_types.default(field) for field in dataclasses.fields(cls)}
        return types.SimpleNamespace(**defaults | values)
    return cls(**values)


def _check_value(cls: Any, field: dataclasses.Field, value: Any, place: Place) -> None:
    """Raises RecipeError for what upstream's types let through: an infinite number, a word that is no choice."""
    if isinstance(value, float) and math.isinf(value) and field_types.is_training_arguments(cls):
        raise RecipeError("expected a finite number, got an infinite one", place)
    choices = field.metadata.get("choices")
    if field.name == "loss_type" and not choices:
        choices = field_types.documented_values(cls, field.name)
    for word in value if isinstance(value, list) else [value]:
        if choices and word is not None and word not in choices:
            near = suggest(word, map(str, choices))
            raise RecipeError(f"expected one of {', '.join(map(str, choices))}, got {word!r}{near}", place)


def _shape(hint: Any) -> Any:
    """The type of a block that is handed on, as far as a macro has to know it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:  # data has short forms, a reward's block is a mapping, and a word stays what it is
        if dataclasses.is_dataclass(arguments[0]):
            return Any
        inner = _shape(arguments[0])
        return hint if inner is arguments[0] and inner is not dict else inner
    if dataclasses.is_dataclass(hint):
        return dict
    shapes = [_shape(argument) for argument in arguments] if origin in (dict, list) else []
    if origin in (typing.Union, types.UnionType):
        return hint if all(_shape(argument) is argument for argument in arguments) else Any
    changed = any(shape is not argument for shape, argument in zip(shapes, arguments, strict=False))
    return origin[tuple(shapes)] if changed else hint  # type: ignore[index]


def _instances(value: Any, hint: Any, dry: bool) -> Any:
    hint = field_types.bare(hint)
    if hint is Reward and isinstance(value, Mapping):
        return load_reward(value)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return instance(hint, value, dry=dry)
    if typing.get_origin(hint) is dict and isinstance(value, Mapping):
        return {key: _instances(item, typing.get_args(hint)[1], dry) for key, item in value.items()}
    if typing.get_origin(hint) is list and isinstance(value, list):
        return [_instances(item, typing.get_args(hint)[0], dry) for item in value]
    return settled(value)


def _list(value: Any, hint: Any, path: Place) -> list[Any]:
    """A list; one value that is no list stands for a list of one, as for trl's own parser (`loss_type: sigmoid`)."""
    if value is None or isinstance(value, Mapping):
        raise RecipeError(f"expected {describe(hint)}, got {value!r}", path)
    element = next((argument for argument in typing.get_args(hint) if argument is not ...), Any)
    values = value if isinstance(value, list | tuple) else [value]
    coerced, mistakes = [], Mistakes()
    for index, item in enumerate(values):
        with mistakes.collected():
            coerced.append(coerce(item, element, (*path, str(index))))
    mistakes.raise_any()
    return coerced


def _mapping(value: Any, hint: Any, path: Place) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"expected {describe(hint)}, got {value!r}", path)
    arguments = typing.get_args(hint)
    element = arguments[1] if len(arguments) == 2 else Any
    coerced, mistakes = {}, Mistakes()
    for key, item in value.items():
        with mistakes.collected():
            coerced[key] = coerce(item, element, (*path, str(key)))
    mistakes.raise_any()
    return coerced


def _checked_block(value: Any, hint: Any, path: Place) -> dict[str, Any]:
    checked = check(hint, value, path, OWNED if field_types.is_training_arguments(hint) else {})
    if hint.__module__.startswith("trimtab."):
        build(hint, checked, path)  # cheap, and its own check of its values names this place
    return checked


def _one_of(value: Any, arguments: tuple, hint: Any, path: Place) -> Any:
    words = [argument for argument in arguments if inspect.isclass(argument) and issubclass(argument, enum.Enum)]
    if len(words) == 1 and isinstance(value, str):
        return member(value, words[0], path)  # upstream's `Enum | str` takes no other string
    for exact in arguments:  # `int | str` must leave "1" alone, `float | None` must read "1e-6"
        if inspect.isclass(exact) and type(value) is exact:
            return coerce(value, exact, path)
    blocks = [argument for argument in arguments if dataclasses.is_dataclass(argument)]
    if len(blocks) == 1 and isinstance(value, Mapping):
        return coerce(value, blocks[0], path)  # whose own complaint is the one to hear
    problem = None
    for argument in sorted(arguments, key=lambda argument: argument is str):
        try:
            return coerce(value, argument, path)
        except RecipeError as error:
            problem = error if problem is None or _is_inside(error, path) else problem
    if problem is not None and (_is_inside(problem, path) or "one of" in problem.message):
        raise problem
    raise RecipeError(f"expected {describe(hint)}, got {value!r}", path)


def _is_inside(error: RecipeError, path: Place) -> bool:
    """Whether a mistake is about a part of the value at `path`, and not about the whole of it."""
    return any(len(mistake.path) > len(path) for mistake in error.mistakes)
