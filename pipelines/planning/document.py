"""A recipe's YAML as plain values, with the line and the origin of every one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trimtab.pipelines.planning.errors import RecipeError, suggest


class Loader(yaml.SafeLoader):
    """The safe loader, which also reads `5e-7` as a number (YAML 1.1 wants `5.0e-7`)."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


@dataclass
class Document:
    """`values` is the nested YAML; `lines` and `origins` map a path of keys to its line and to where it came from."""

    path: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    origins: dict[tuple[str, ...], str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str, overrides: Sequence[str] = ()) -> Document:
        """Reads the file and applies `a.b.c=value` overrides. Raises RecipeError for anything unreadable."""
        document = cls(str(path))
        try:
            node = yaml.compose(Path(path).read_text(), Loader)
        except FileNotFoundError:
            near = suggest(Path(path).name, [p.name for p in Path(path).parent.glob("*.yaml")])
            raise RecipeError(f"no such recipe: {path}{near}") from None
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise RecipeError(f"not readable as YAML: {error}") from None
        values = document._values(node, ()) if node else None
        if not isinstance(values, dict):
            raise RecipeError(f"{path}: a recipe is a mapping with `stages`, got {type(values).__name__}")
        document.values = values
        for override in overrides:
            document._override(override)
        return document

    def locate(self, error: RecipeError) -> RecipeError:
        """The error with "file:line" in front: the line of the longest part of its path that the file has."""
        path = error.path
        while path and path not in self.lines:
            path = path[:-1]
        origin = self.origins.get(error.path, "")
        error.place = origin if origin.startswith("override") else f"{self.path}:{self.lines.get(path, 1)}"
        return error

    def set(self, path: tuple[str, ...], value: Any, origin: str, line: int | None = None) -> None:
        """Sets one value, making the mappings on the way."""
        target = self.values
        for depth, key in enumerate(path[:-1]):
            if isinstance(target, list) and key.isdigit() and int(key) < len(target):
                target = target[int(key)]
                continue
            if not isinstance(target.get(key), dict | list):
                target[key] = {}
            target = target[key]
            if not isinstance(target, dict | list):
                raise RecipeError(f"{'.'.join(path[: depth + 1])} is not a mapping", path)
        if isinstance(target, list):
            if not path[-1].isdigit() or int(path[-1]) >= len(target):
                raise RecipeError(f"the list has {len(target)} entries", path)
            target[int(path[-1])] = value
        else:
            target[path[-1]] = value
        self._mark(path, value, origin, line)

    def merge(self, path: tuple[str, ...], source: tuple[str, ...]) -> None:
        """Copies what `source` has and `path` has not, keeping the lines and calling the origin "defaults"."""
        for key, value in self.at(source).items():
            target, default = (*path, key), (*source, key)
            mine = self.at(path)
            if key in mine and isinstance(mine[key], dict) and isinstance(value, dict):
                self.merge(target, default)
            elif key not in mine:
                self.set(target, _copy(value), "defaults", self.lines.get(default))

    def at(self, path: Sequence[str]) -> Any:
        target = self.values
        for key in path:
            target = target[key]
        return target

    def _override(self, text: str) -> None:
        key, equals, value = text.partition("=")
        path = tuple(key.strip().removeprefix("--").split("."))
        if not equals or not all(path):
            raise RecipeError(f"override {text!r}: expected a.b.c=value, as in stages.dpo.train.beta=0.2")
        if path[0] == "stages" and len(path) > 1 and path[1] not in (self.values.get("stages") or {}):
            stages = self.values.get("stages") or {}
            raise RecipeError(f"override {text!r}: no stage {path[1]!r}{suggest(path[1], stages)}")
        try:
            parsed = yaml.load(value, Loader) if value.strip() else ""
        except yaml.YAMLError:
            parsed = value
        self.set(path, parsed, f"override {text}")

    def _mark(self, path: tuple[str, ...], value: Any, origin: str, line: int | None) -> None:
        self.origins[path] = origin
        if line is not None:
            self.lines[path] = line
        for key, item in value.items() if isinstance(value, Mapping) else ():
            self._mark((*path, str(key)), item, origin, line)

    def _values(self, node: yaml.Node, path: tuple[str, ...]) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.origins[path] = f"recipe line {self.lines[path]}"
        loader = Loader("")
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            for index, key in enumerate(keys):
                if key in keys[:index]:
                    line = node.value[index][0].start_mark.line + 1
                    raise RecipeError(f"{self.path}:{line}: key {key!r} is given twice")
            loader.flatten_mapping(node)  # `<<: *anchor`
            values: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = loader.construct_object(key_node)
                self.lines[(*path, str(key))] = key_node.start_mark.line + 1
                values[key] = self._values(value_node, (*path, str(key)))
            return values
        if isinstance(node, yaml.SequenceNode):
            return [self._values(item, (*path, str(i))) for i, item in enumerate(node.value)]
        try:
            return loader.construct_object(node)
        except yaml.YAMLError as error:
            raise RecipeError(f"{self.path}:{line}: {error}") from None


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
