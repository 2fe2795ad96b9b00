"""`defaults` go under the stages: each key where it fits, and one that fits nowhere is a mistake.

A key fits a stage whose block has it. Inside a block of upstream's, such as `train`, it fits where upstream's class
has it: `max_length` is no key of GRPOConfig, so a GRPO stage goes without, and the plan says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from trimtab.pipelines.planning import field_types, kinds, upstream
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import OWNED, RENAMED, RecipeError, suggest


class Defaults:
    """The `defaults` of a recipe, and where they went."""

    def __init__(self, document: Document, values: dict[str, Any]):
        self.document, self.values = document, values
        self.known: set[str] = set()  # keys of the stages' kinds
        self.inside: dict[str, set[str]] = {}  # key -> those inside it that fit a stage
        self.skipped: dict[str, list[str]] = {}  # key, as in "train.max_length" -> stages that have no such key

    def merge(self, cls: Any, stage: str, block: dict[str, Any], known: Collection[str]) -> None:
        """Puts what `defaults` says under what the stage says, where it fits; `known` are the keys of a block."""
        self.known |= set(known)
        for key, value in self.values.items():
            path, source = ("stages", stage, key), ("defaults", key)
            if key not in known:
                continue
            if isinstance(value, dict) and isinstance(block.setdefault(key, {}), dict):
                self.document.merge(path, source, self._misfits(cls, stage, key, value))
            elif key not in block:
                self.document.set(path, value, "defaults", self.document.lines.get(source))

    def mistakes(self) -> Iterator[RecipeError]:
        """An error for each key that fits no stage; blocks may be for stages that the recipe has not."""
        for key in self.values:
            near = suggest(key, self.known)
            if key not in self.known and near:
                yield RecipeError(f"no stage has such a key{near}", ("defaults", key))
        for key, fitting in self.inside.items():
            for name in self.values[key]:
                if name not in fitting:
                    hint = f": {RENAMED[name]}" if name in RENAMED else suggest(name, fitting)
                    yield RecipeError(f"no stage has such a key in `{key}`{hint}", ("defaults", key, name))

    def notes(self) -> list[str]:
        """A line for each key that some stages go without."""
        return [
            f"defaults.{key} is no key of {', '.join(stages)}: skipped there" for key, stages in self.skipped.items()
        ]

    def _misfits(self, cls: Any, stage: str, key: str, value: Mapping[str, Any]) -> set[str]:
        """The names inside a block of defaults that the stage's block of this key has not."""
        fields = _keys(field_types.hints(cls).get(key))
        if fields is None:
            return set()
        self.inside.setdefault(key, set()).update(fields | OWNED.keys())  # the check says whose keys those are
        misfits = set(value) - fields - OWNED.keys()
        for name in misfits:
            self.skipped.setdefault(f"{key}.{name}", []).append(stage)
        return misfits


def _keys(hint: Any) -> set[str] | None:
    """The keys that a block of upstream's takes, or one that a macro hands on; None where any may be right."""
    handed_on = [note for note in field_types.notes(hint) if isinstance(note, field_types.KeysOf)]
    if handed_on:
        of_classes = [_fields(_class(name)) for name in handed_on[0].names]
        return None if None in of_classes else set.intersection(*filter(None, of_classes))
    short_forms = any(callable(note) for note in field_types.notes(hint))
    return None if short_forms else _fields(field_types.bare(hint))


def _class(name: str) -> Any:
    return upstream.outline(name[4:]) if name.startswith("trl.") else kinds.find(kinds.STAGES, name)


def _fields(cls: Any) -> set[str] | None:
    return {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else None
