"""A recipe's YAML as plain values, with the line and the origin of every one of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trimtab.pipelines import ROOT
from trimtab.pipelines.planning import credentials
from trimtab.pipelines.planning.errors import Mistakes, RecipeError, RecipeErrors, suggest
from trimtab.pipelines.planning.yaml_limits import TooMuch, read
from trimtab.pipelines.planning.yaml_words import Loader

RECIPES = ROOT / "recipes"
DOTTED = {"sweep": 1, "arms": 2}  # blocks whose keys are dotted paths themselves, and how deep these stand


@dataclass
class Document:
    """`values` is the nested YAML; `lines` and `origins` map a path of keys to its line and to where it came from."""

    path: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    origins: dict[tuple[str, ...], str] = field(default_factory=dict)
    mistakes: Mistakes = field(default_factory=Mistakes)  # of the file and of the overrides
    _merged: set[int] = field(default_factory=set, repr=False)  # nodes whose merge keys are already in them

    @classmethod
    def read(cls, path: str, overrides: Sequence[str] = ()) -> Document:
        """Reads the file and applies `a.b.c=value` overrides. Raises RecipeError for anything unreadable."""
        document = cls.sketched(path, overrides)
        try:
            document.mistakes.raise_any()
        except RecipeError as error:
            raise document.locate(error) from None
        return document

    @classmethod
    def sketched(cls, path: str, overrides: Sequence[str] = ()) -> Document:
        """The document with what could be read, and with the `mistakes` of the rest.

        Raises RecipeError for a file that is no recipe at all, and for a secret in it.
        """
        document = cls(str(path))
        with document._readable():
            node = yaml.compose(read(document.path), Loader)
            values = document._values(node, ()) if node else None
        if not isinstance(values, dict):
            shown = "an empty file" if node is None else f"a {type(values).__name__}"
            raise document._placed(RecipeError(f"a recipe is a mapping with `stages`, got {shown}"), 1)
        document.values = values
        for override in overrides:
            with document.mistakes.collected():
                document.override(override)
        try:
            credentials.refuse(document.values, document.origins)
        except RecipeError as error:
            raise document.locate(error) from None
        return document

    def locate(self, error: RecipeError) -> RecipeError:
        """The error with "file:line" in front; several are sorted by it, and one in `defaults` is told once.

        The line is that of the longest part of its path that the file has.
        """
        for mistake in error.mistakes:
            if mistake.place:
                continue
            path = mistake.path
            while path and path not in self.lines:
                path = path[:-1]
            self._placed(mistake, self.lines.get(path, 1))
            origin = self.origins.get(mistake.path, "")
            if origin.startswith("override"):
                mistake.place, mistake.line = origin, 0
        if len(error.mistakes) == 1:
            return error
        told: dict[Any, RecipeError] = {}
        for mistake in sorted(error.mistakes, key=lambda mistake: mistake.line):
            is_default = self.origins.get(mistake.path) == "defaults"
            told.setdefault((mistake.line, mistake.path[-1]) if is_default else mistake, mistake)
        return RecipeErrors(list(told.values()))

    def set(self, path: tuple[str, ...], value: Any, origin: str, line: int | None = None) -> None:
        """Sets one value, making the mappings on the way."""
        target = self.values
        for depth, key in enumerate(path[:-1]):
            if isinstance(target, list) and key.isdigit() and int(key) < len(target):
                target = target[int(key)]
                continue
            if not isinstance(target.get(key), dict | list):
                target[key] = {}
                self.origins[path[: depth + 1]] = origin
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

    def merge(self, path: tuple[str, ...], source: tuple[str, ...], without: Collection[str] = ()) -> None:
        """Copies what `source` has and `path` has not, keeping the lines and calling the origin "defaults"."""
        for key, value in self.at(source).items():
            if key in without:
                continue
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

    def override(self, text: str) -> None:
        """Applies `a.b.c=value`. Raises RecipeError."""
        key, equals, value = text.partition("=")
        path = path_of(text)
        if not equals or not all(path):
            raise RecipeError(f"override {key!r}: expected a.b.c=value, as in stages.dpo.train.beta=0.2")
        if path[0] == "stages" and len(path) > 1 and path[1] not in (self.values.get("stages") or {}):
            stages = self.values.get("stages") or {}
            raise RecipeError(f"override {key!r}: no stage {path[1]!r}{suggest(path[1], stages)}")
        try:
            parsed = yaml.load(value, Loader) if value.strip() else ""
        except TooMuch as error:
            raise RecipeError(f"override of {key}: {error.problem}", path) from None
        except (yaml.YAMLError, ValueError):
            parsed = value
        self.set(path, parsed, f"override {text}")
        _refuse_nan(parsed, path)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Makes a RecipeError of whatever keeps the file from being read as YAML, with its line."""
        try:
            yield
        except FileNotFoundError:
            shipped = [str(p.relative_to(RECIPES).with_suffix("")) for p in RECIPES.rglob("*.yaml")]
            beside = [p.name for p in Path(self.path).parent.glob("*.yaml")]
            near = suggest(Path(self.path).name, beside) or suggest(self.path, shipped)
            raise RecipeError(f"no such recipe: {self.path}{near}") from None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            message = f"byte {error.object[error.start]:#x} is not UTF-8: save the file as UTF-8"
            raise self._placed(RecipeError(message), line) from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = ", ".join(part for part in (error.context, error.problem) if part)
            hint = ": indent with spaces" if "'\\t'" in said else ""
            line = mark.line + 1 if mark else 1
            raise self._placed(RecipeError(f"not readable as YAML: {said}{hint}"), line) from None
        except (yaml.YAMLError, OSError) as error:
            raise RecipeError(f"{self.path}: not readable as YAML: {error}") from None

    def _placed(self, mistake: RecipeError, line: int) -> RecipeError:
        mistake.place, mistake.line = f"{self.path}:{line}", line
        return mistake

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
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._values(item, (*path, str(i))) for i, item in enumerate(node.value)]
        try:
            value = Loader("").construct_object(node)
        except ValueError as error:
            raise self._placed(RecipeError(f"not readable as YAML: {error}"), line) from None
        with self.mistakes.collected():
            _refuse_nan(value, path)
        return value

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, Any]:
        loader = Loader("")
        first: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._placed(RecipeError("not readable as YAML: a key is a word, not a list or a mapping"), line)
            is_own = id(node) not in self._merged and key_node.tag != "tag:yaml.org,2002:merge"
            if str(key) in first and is_own:
                message = f"key {key!r} is given twice, in lines {first[key]} and {line}"
                self.mistakes.add(self._placed(RecipeError(message), line))
            first.setdefault(str(key), line)
        loader.flatten_mapping(node)  # `<<: *anchor`
        self._merged.add(id(node))
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node)
            key = str(key) if isinstance(key, str) else key  # a name such as `no` is a word for good
            self.lines[(*path, str(key))] = key_node.start_mark.line + 1
            values[key] = self._values(value_node, (*path, str(key)))
        return values


def path_of(override: str) -> tuple[str, ...]:
    """The path that `a.b.c=value` sets; under a key of DOTTED the rest of it is one key."""
    parts = tuple(override.partition("=")[0].strip().removeprefix("--").split("."))
    depth = DOTTED.get(parts[0], len(parts))
    return (*parts[:depth], ".".join(parts[depth:])) if parts[depth:] else parts


def _refuse_nan(value: Any, path: tuple[str, ...]) -> None:
    if isinstance(value, float) and math.isnan(value):
        raise RecipeError("NaN is not a number", path)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
