"""Upstream's configuration classes as their source writes them: keys, types and choices, without an import.

Importing a configuration of trl imports torch, which takes seconds. What is misspelt is found without. A name of the
source that stands for neither a class nor an enumeration is taken as Any: the real class is asked before a launch.
"""

from __future__ import annotations

import ast
import builtins
import copy
import dataclasses
import enum
import importlib
import importlib.util
import sys
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ENUMERATIONS = {"Enum", "StrEnum", "ExplicitEnum"}


class Outlines:
    """Stands for the module `trl` where annotations are read: `trl.SFTConfig` is an outline of it.

    A class of a file that imports nothing but Python's own library is that class itself.
    """

    def __getattr__(self, name: str) -> Any:
        module = _module(name)
        if module is not None and _is_light(module):
            return getattr(importlib.import_module(module), name)
        return outline(name)


@cache
def outline(name: str) -> Any:
    """A dataclass with the fields of a configuration of trl; Any where its source does not show them."""
    module = _module(name)
    return Any if module is None else _named(module, name)


@cache
def _module(name: str) -> str | None:
    """The module of a configuration of trl, None where none has it."""
    folder = _file("trl").parent / "trainer"
    for file in sorted(folder.glob("*_config.py")):
        if f"class {name}" in file.read_text():
            return f"trl.trainer.{file.stem}"
    return None


@cache
def _is_light(module: str) -> bool:
    nodes = list(ast.walk(_tree(module)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {"." * node.level + (node.module or "") for node in nodes if isinstance(node, ast.ImportFrom)}
    return all(name.split(".")[0] in sys.stdlib_module_names for name in names)


@cache
def _file(module: str) -> Path:
    """The source file of a module, which is not imported."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    path = Path(spec.origin).parent.joinpath(*rest) if spec and spec.origin else Path(top)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text()) if _file(module).is_file() else ast.Module([], [])


@cache
def _named(module: str, name: str) -> Any:
    """The outline of what `name` means in a module: a dataclass, an enumeration, or Any."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _outlined(module, node)
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            package = module if _file(module).name == "__init__.py" else module.rpartition(".")[0]
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            if source.split(".")[0] in ("trl", "transformers"):
                return _named(source, name)
    return getattr(typing, name, Any)


def _outlined(module: str, node: ast.ClassDef) -> Any:
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    if ENUMERATIONS & set(bases):
        return enum.Enum(node.name, dict(_members(node)))  # type: ignore[misc]
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return Any
    fields: dict[str, tuple[str, Any, Any]] = {}
    for base in bases:
        inherited = _named(module, base)
        if not dataclasses.is_dataclass(inherited):
            return Any
        fields |= {field.name: (field.name, field.type, _copied(field)) for field in dataclasses.fields(inherited)}
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            fields[item.target.id] = (item.target.id, _type(module, item.annotation), _field(item.value, node))
    made = dataclasses.make_dataclass(node.name, fields.values(), kw_only=True)
    made.__module__ = module
    return made


def _members(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    for item in node.body:
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            yield item.targets[0].id, _literal(item.value)


class _Names(dict):
    """The names of a module's annotations."""

    def __init__(self, module: str):
        super().__init__()
        self.module = module

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name) if hasattr(builtins, name) else _named(self.module, name)


def _type(module: str, annotation: ast.expr) -> Any:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    try:
        return eval(compile(ast.Expression(annotation), module, "eval"), {}, _Names(module))
    except (TypeError, AttributeError):
        return Any


def _field(value: ast.expr | None, within: ast.ClassDef) -> Any:
    """The dataclass field that stands behind an annotation; a default that the source does not show is None."""
    if value is None:
        return dataclasses.field()
    if not isinstance(value, ast.Call):
        return _defaulting(_value(value, within), {})
    keywords = {word.arg: word.value for word in value.keywords}
    metadata = keywords.get("metadata")
    pairs = zip(metadata.keys, metadata.values, strict=True) if isinstance(metadata, ast.Dict) else ()
    noted = {_literal(key): _literal(item) for key, item in pairs if key is not None}
    default, factory = keywords.get("default"), keywords.get("default_factory")
    if default is not None:
        return _defaulting(_value(default, within), noted)
    return dataclasses.field(metadata=noted) if factory is None else _defaulting(_produced(factory), noted)


def _value(node: ast.expr, within: ast.ClassDef) -> Any:
    """What an expression stands for: a literal, or a name by what it is set to last in the body of the class."""
    if not isinstance(node, ast.Name):
        return _literal(node)
    assignments = [line for line in ast.walk(within) if isinstance(line, ast.Assign)]
    values = [line.value for line in assignments if node.id in map(ast.unparse, line.targets)]
    return _literal(values[-1]) if values else None


def _produced(factory: ast.expr) -> Any:
    """What a factory of defaults makes: `lambda: [...]`, `list` or `dict`."""
    if isinstance(factory, ast.Lambda):
        return _literal(factory.body)
    return {"list": [], "dict": {}}.get(ast.unparse(factory))


def _copied(field: dataclasses.Field) -> Any:
    if field.default_factory is dataclasses.MISSING:
        return dataclasses.field(metadata=field.metadata)
    return dataclasses.field(default_factory=field.default_factory, metadata=field.metadata)


def _defaulting(value: Any, metadata: dict[Any, Any]) -> Any:
    return dataclasses.field(default_factory=lambda: copy.copy(value), metadata=metadata)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
