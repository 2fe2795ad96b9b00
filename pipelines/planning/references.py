"""What `$name` means in a recipe: the artifact of a stage above, a folder or a number in it, or an input."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.recipe import Step
from trimtab.pipelines.planning.schema import coerce

UNKNOWN = "unknown"  # the fingerprint of a step that cannot be planned, or not without code that nobody consented to
REFERENCE = re.compile(r"^\$([A-Za-z][\w-]*)((?:/[\w.-]+)*|\.[A-Za-z][\w-]*)$")


def is_reference(value: Any) -> bool:
    """Whether a value is written as `$name`; `$$` is a dollar."""
    return isinstance(value, str) and value.startswith("$") and not value.startswith("$$")


def strings(value: Any) -> Iterator[str]:
    """Every string inside a value of a recipe."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


@dataclass
class References:
    """The names that a stage may refer to: those of the `steps` and stages above, and the `inputs` from outside."""

    document: Document
    inputs: Mapping[str, Any]
    steps: dict[str, Step] = field(default_factory=dict)

    def target(self, text: str, path: tuple[str, ...]) -> tuple[Step | str, str]:
        """The step or the outside place that a reference names, and what follows: "", "/folder" or "/file#number".

        A reference to nothing above is a mistake of the document's, and gives a step that will never be.
        """
        try:
            return self._target(text, path)
        except RecipeError as error:
            self.document.mistakes.add(error)
            return absent("unknown"), ""

    def _target(self, text: str, path: tuple[str, ...]) -> tuple[Step | str, str]:
        match = REFERENCE.match(text)
        if not match:
            raise RecipeError(
                f"{text!r} is not a reference: write $stage, $stage/folder or $stage.number (and $$ for a dollar)",
                path,
            )
        name, rest = match.groups()
        rest = f"/thresholds.json#{rest[1:]}" if rest.startswith(".") else rest
        if name in self.steps:
            _check_number(self.steps[name], rest, path)
            return self.steps[name], rest
        if name in self.inputs:
            return coerce(self.inputs[name], str, ("inputs", name)), rest
        raise self._unknown(text, name, path)

    def block(self, text: Any) -> Any:
        """The block that stands under the name of an input, such as a dataset with its keys; None for all else."""
        given = self.inputs.get(text[1:]) if is_reference(text) and text[1:] not in self.steps else None
        return given if isinstance(given, dict | list) else None

    def resolve(self, value: Any, path: tuple[str, ...], met: dict[str, Step]) -> Any:
        """The value with a place for every reference; the steps that it refers to are added to `met`."""
        if isinstance(value, dict):
            return {key: self.resolve(item, (*path, str(key)), met) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, (*path, str(index)), met) for index, item in enumerate(value)]
        if not is_reference(value):
            return value[1:] if isinstance(value, str) and value.startswith("$$") else value
        block = self.block(value)
        if block is not None:
            return self.resolve(block, path, met)
        target, rest = self.target(value, path)
        if isinstance(target, str):
            return target + rest
        met[target.name] = target
        return str(target.output) + rest

    def _unknown(self, text: str, name: str, path: tuple[str, ...]) -> RecipeError:
        if name == path[1]:
            return RecipeError(f"{text!r} refers to the stage itself", path)
        if name in self.document.values["stages"]:
            line = self.document.lines.get(("stages", name), "?")
            return RecipeError(f"{text!r} is below (line {line}): a stage refers only to stages above it", path)
        known = [*self.steps, *self.inputs]
        there = ", ".join(known) or "none"
        return RecipeError(f"no stage or input {name!r} above{suggest(name, known)} (there are: {there})", path)


def absent(name: str) -> Step:
    """A step that cannot be planned, for those that refer to it: what is wrong with them can still be said."""
    folder = Path(f"{name}-{UNKNOWN}")
    return Step(name, name, "", {}, 0, "auto", UNKNOWN, folder, folder / "output", ())


def _check_number(step: Step, rest: str, path: tuple[str, ...]) -> None:
    """A step leaves thresholds of its `rewards`: others are a mistake that is known before it runs."""
    known, word = step.options.get("rewards"), rest.partition("#")[2]
    if word and known is not None and word not in known:
        raise RecipeError(
            f"{step.name} has no reward {word!r}{suggest(word, known)} (it has: {', '.join(known)})", path
        )
