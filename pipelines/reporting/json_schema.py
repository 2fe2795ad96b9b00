"""A JSON schema of recipes, for editors: keys, types and words of every kind, from the same dataclasses as the docs.

An editor knows less than the plan: a `$reference` may stand for any value, and code from outside for any kind.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import inspect
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.pipelines.algorithms.schedules import ScheduleSettings
from trimtab.pipelines.data.blocks import DataEntry, DataMixture, mixture
from trimtab.pipelines.data.layouts import block as layout_block
from trimtab.pipelines.planning import bounds, field_types, kinds, optimizer_blocks, planner, reward_blocks
from trimtab.pipelines.planning.errors import OWNED
from trimtab.pipelines.reporting.docstrings import summary
from trimtab.rewards import Reward

Schema = dict[str, Any]
REFERENCE: Schema = {"type": "string", "pattern": r"^\$"}
WRITTEN_NUMBER: Schema = {"type": "string", "pattern": r"^[-+]?[0-9_.]+([eE][-+]?[0-9]+)?$"}  # as 5e-7 is for YAML 1.1
DOTTED: Schema = {"type": "string", "pattern": r"\."}
VALUES: dict[str, Schema] = {
    "whole": {"anyOf": [{"type": "integer"}, {"type": "number", "multipleOf": 1}, WRITTEN_NUMBER, REFERENCE]},
    "number": {"anyOf": [{"type": "number"}, WRITTEN_NUMBER, REFERENCE]},
    "truth": {"anyOf": [{"type": "boolean"}, {"enum": ["yes", "no", "on", "off"]}, REFERENCE]},
}
PLAIN: dict[Any, Schema] = {
    int: {"$ref": "#/$defs/whole"},
    float: {"$ref": "#/$defs/number"},
    bool: {"$ref": "#/$defs/truth"},
    str: {"type": ["string", "boolean"]},  # an unquoted `no` is a word where the key wants one
    type(None): {"type": "null"},
}
LONGEST = 200  # characters of what is said of a key
LONGER = 60  # than a reference
OF_REWARDS = {
    **{key: ("policy", hint) for key, hint in reward_blocks.POLICY.items()},
    **{key: ("constraint", hint) for key, hint in reward_blocks.CONSTRAINT.items()},
}
OPTIMIZER: Schema = {
    "anyOf": [
        {"type": ["string", "null"]},
        {
            "type": "object",
            "properties": {
                optimizer_blocks.CLASS: {"anyOf": [{"enum": kinds.words(kinds.OPTIMIZERS)}, DOTTED]},
                optimizer_blocks.STATE: {"type": "string"},
            },
        },
    ],
    "description": "of a training: a class with its keys, or the stage whose optimizer's state it begins with",
}
BOUND: Schema = {"anyOf": [PLAIN[float], {"type": "string", "pattern": bounds.FORM.pattern}]}
OF_STAGES: Schema = {
    "seed": PLAIN[int],
    "accelerate": {"type": "string", "description": "a name from accelerate_configs/, a path, or auto"},
    bounds.KEY: {
        "type": "object",
        "additionalProperties": BOUND,
        "description": 'numbers that it has to have reached, or the run ends behind it: 0.65, or ">= 0.65"',
    },
    optimizer_blocks.KEY: OPTIMIZER,
    "tokens_per_batch": {"allOf": [PLAIN[int]], "description": "tokens of a micro-batch at most, with `batch_size`"},
    "batch_size": {"allOf": [PLAIN[int]], "description": "rows of an optimizer step, on all ranks together"},
}


class Definitions:
    """The schema's definitions, each made once."""

    def __init__(self) -> None:
        self.made: dict[str, Schema] = dict(VALUES)

    def of_class(self, cls: Any) -> Schema:
        """A reference to the keys of a dataclass, ours or upstream's."""
        name = cls.__name__
        if name not in self.made:
            self.made[name] = {}
            self.made[name] = self._keys(cls)
        return {"$ref": f"#/$defs/{name}"}

    def of_kinds(self, package: str, name: str, more: Mapping[str, Schema], *, words: bool = False) -> Schema:
        """A reference to a block with a `kind`, or also to its word alone."""
        if name not in self.made:
            self.made[name] = {}
            known = kinds.words(package)
            blocks = [self._of_kind(package, name, word, more) for word in known]
            kind = {"anyOf": [{"enum": known}, DOTTED]}
            block = {"type": "object", "properties": {"kind": kind}, "required": ["kind"], "allOf": blocks}
            self.made[name] = {"anyOf": [kind, block]} if words else block
        return {"$ref": f"#/$defs/{name}"}

    def of_hint(self, hint: Any) -> Schema:
        """The schema of an annotation."""
        notes, arguments = getattr(hint, "__metadata__", ()), typing.get_args(hint)
        if mixture in notes:
            return self._data()
        if layout_block in notes:
            return {"anyOf": [self.of_kinds(kinds.LAYOUTS, "layout", {}, words=True), {"type": "null"}, REFERENCE]}
        if hint is Reward or hint in (
            reward_blocks.RewardBlock,
            reward_blocks.WeightedReward,
            reward_blocks.ConstrainedReward,
        ):
            return self.reward()
        if any(isinstance(note, field_types.KeysOf) for note in notes):
            return {"type": "object"}
        if bounds.bound in notes:
            return BOUND
        for note in notes:
            if isinstance(note, field_types.WordOf):
                return {"anyOf": [{"enum": note.words}, DOTTED]}
        if notes:
            return {} if any(map(callable, notes)) else self.of_hint(arguments[0])
        return self._plain(hint, arguments)

    def reward(self) -> Schema:
        """A reference to the block of a reward, with the keys of its callers."""
        return self.of_kinds(
            kinds.REWARDS, "reward", {key: self.of_hint(hint) for key, (_, hint) in OF_REWARDS.items()}
        )

    def _plain(self, hint: Any, arguments: Sequence[Any]) -> Schema:
        origin = typing.get_origin(hint)
        if inspect.isclass(hint) and issubclass(hint, enum.Enum):
            return {"anyOf": [{"enum": [member.value for member in hint]}, {"type": "boolean"}, REFERENCE]}
        if dataclasses.is_dataclass(hint):
            return {"anyOf": [self.of_class(hint), REFERENCE]}
        if origin is typing.Literal:
            return {"anyOf": [{"enum": list(arguments)}, REFERENCE]}
        if origin in (list, tuple, Sequence) or hint in (list, tuple):
            items = self.of_hint(arguments[0]) if arguments else {}
            return {"anyOf": [{"type": "array", "items": items}, items]} if items else {}
        if origin in (dict, Mapping):
            values = self.of_hint(arguments[1]) if len(arguments) == 2 else {}
            return {"anyOf": [{"type": "object", "additionalProperties": values}, REFERENCE]}
        if arguments:
            options = [self.of_hint(argument) for argument in arguments]
            return {} if {} in options else {"anyOf": options}
        return dict(PLAIN.get(hint, {}))

    def _keys(self, cls: Any) -> Schema:
        types = field_types.hints(cls)
        fields = [field for field in dataclasses.fields(cls) if field.init]
        owned = OWNED if field_types.is_training_arguments(cls) else {}
        keys = {field.name: self._key(field, types[field.name]) for field in fields if field.name not in owned}
        required = [field.name for field in fields if field_types.is_required(field) and field.name in keys]
        schema = {"type": "object", "properties": keys, "additionalProperties": False}
        return schema | ({"required": required} if required else {})

    def _key(self, field: dataclasses.Field, hint: Any) -> Schema:
        said = " ".join(str(field.metadata.get("help") or "").split()).split(". ")[0][:LONGEST]
        schema = self.of_hint(hint)
        default = field_types.default(field)
        if "$ref" in schema:
            schema = {"allOf": [schema]}  # beside a reference nothing else counts
        described = schema | ({"description": said} if said else {})
        plain = not field_types.is_required(field) and isinstance(default, str | int | float | bool)
        return described | ({"default": default} if plain else {})

    def _of_kind(self, package: str, name: str, word: str, more: Mapping[str, Schema]) -> Schema:
        """The keys of a block whose `kind` is `word`."""
        return {
            "if": {"properties": {"kind": {"const": word}}, "required": ["kind"]},
            "then": self.kind(package, name, word, more),
        }

    def kind(self, package: str, name: str, word: str, more: Mapping[str, Schema]) -> Schema:
        """A reference to the keys of one kind, and those that every block of its sort takes."""
        key = f"{name}-{word}"
        if key not in self.made:
            self.made[key] = {}
            target = kinds.find(package, word)
            keys: Schema = {"type": "object", "properties": {}}
            if dataclasses.is_dataclass(target):
                keys = self._keys(target)
            if "expand" in vars(target):
                keys.pop("required", None)  # which it may fill in itself
            keys["properties"] = {"kind": {"type": "string"}, **more, **keys["properties"]}
            keys["description"] = summary(inspect.getmodule(target).__doc__ or "")  # type: ignore[union-attr]
            self.made[key] = keys
        return {"$ref": f"#/$defs/{key}"}

    def _data(self) -> Schema:
        if "data" not in self.made:
            self.made["data"] = {}
            entry, whole = self._keys(DataEntry), self._keys(DataMixture)
            keys = {**whole["properties"], **entry["properties"]}
            one = {"type": "object", "properties": keys, "additionalProperties": False}
            self.made["data"] = {"anyOf": [{"type": "string"}, one, {"type": "array"}]}
        return {"$ref": "#/$defs/data"}


def schema() -> Schema:
    """The schema of a recipe."""
    definitions = Definitions()
    known = kinds.words(kinds.STAGES)
    of_stages = {**OF_STAGES, "schedule": definitions.of_hint(ScheduleSettings | None)}
    block = definitions.of_kinds(kinds.STAGES, "stage", of_stages)
    by_name = {}
    for word in known:
        own = definitions.kind(kinds.STAGES, "stage", word, of_stages)
        by_name[word] = {"if": {"required": ["kind"]}, "then": block, "else": own}
    anything: Schema = {"type": "object"}
    top: dict[str, Schema] = {
        "name": {"type": "string", "description": "of the run; the file's name when left out"},
        "seed": PLAIN[int],
        "output_dir": {"type": "string"},
        "wandb": {"anyOf": [{"type": "boolean"}, _of_words(planner.WANDB)]},
        "stages": {"type": "object", "properties": by_name, "additionalProperties": block},
        **dict.fromkeys(("inputs", "defaults", "sweep", "arms", "search"), anything),
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A recipe of Trimtab's",
        "type": "object",
        "properties": {key: top[key] for key in planner.KEYS},
        "required": ["stages"],
        "additionalProperties": False,
        "$defs": _shared(definitions.made),
    }


def text() -> str:
    """The schema as it is written to a file: a line for each key of a definition."""
    return _lines(schema(), depth=4) + "\n"


def _lines(value: Any, depth: int) -> str:
    """JSON whose objects are broken into lines down to `depth`."""
    if depth == 0 or not isinstance(value, dict) or not value:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {_lines(value[key], depth - 1)}" for key in sorted(value)) + "\n}"


def _shared(definitions: Mapping[str, Schema]) -> dict[str, Schema]:
    """The same definitions, with what several of them say of a key alike said once: upstream's classes overlap."""
    written = collections.Counter(
        (key, json.dumps(said, sort_keys=True))
        for definition in definitions.values()
        for key, said in definition.get("properties", {}).items()
    )
    names: dict[tuple[str, str], str] = {}
    for (key, said), count in written.items():
        if count > 1 and len(said) > LONGER:
            names[key, said] = f"{key}.{sum(other == key for other, _ in names)}"

    def share(key: str, said: Schema) -> Schema:
        name = names.get((key, json.dumps(said, sort_keys=True)))
        return {"$ref": f"#/$defs/{name}"} if name else said

    shared = {}
    for name, definition in definitions.items():
        keys = {key: share(key, said) for key, said in definition.get("properties", {}).items()}
        shared[name] = definition | ({"properties": keys} if keys else {})
    return shared | {name: json.loads(said) for (_, said), name in names.items()}


def _of_words(words: Sequence[str]) -> Schema:
    return {"type": "object", "properties": {word: {} for word in words}, "additionalProperties": False}
