"""Keys and types as a reader of YAML would say them, in Markdown."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Sequence
from typing import Any

from trimtab.pipelines.data.forms import mixture
from trimtab.pipelines.planning import field_types, optimizer_blocks, reward_blocks
from trimtab.rewards import Reward

PLAIN = {str: "string", Any: "any", type(None): "null"}


def type_text(hint: Any) -> str:
    """A type as a reader of YAML would say it."""
    notes, arguments = getattr(hint, "__metadata__", ()), typing.get_args(hint)
    for note in notes:
        if isinstance(note, field_types.NamesModel):
            return "model"
        if isinstance(note, field_types.WordOf):
            return "one of " + ", ".join(f"`{word}`" for word in note.words)
        if isinstance(note, field_types.KeysOf):
            return "keys of " + " or ".join(kind_or_class(name) for name in note.names)
    if mixture in notes:
        return "data"
    if hint is Reward or hint == reward_blocks.RewardBlock:
        return "[reward block](rewards.md)"
    if hint == reward_blocks.ConstrainedReward:
        return f"[reward block](rewards.md) with {listed(list(reward_blocks.CONSTRAINT))}"
    if hint == reward_blocks.WeightedReward:
        return f"[reward block](rewards.md) with {listed(list(reward_blocks.WEIGHT))}"
    if hint == optimizer_blocks.OptimizerBlock:
        return "[optimizer block](optimizers.md)"
    if notes:
        return type_text(arguments[0])
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return link(title(hint)) if is_ours(hint) else f"`trl.{hint.__name__}`"
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f"`{word}`" for word in arguments)
    if typing.get_origin(hint) is list:
        return f"list of {type_text(arguments[0])}"
    if typing.get_origin(hint) is dict:
        return (
            "mapping" if arguments[1] is Any else f"mapping of {type_text(arguments[0])} to {type_text(arguments[1])}"
        )
    if arguments:
        return " or ".join(type_text(argument) for argument in arguments)
    return PLAIN.get(hint) or hint.__name__.lower()


def default_text(field: dataclasses.Field) -> str:
    """The default of a key as YAML would write it."""
    import yaml

    if field_types.is_required(field):
        return "required"
    value = field_types.default(field)
    if dataclasses.is_dataclass(value):
        return "`{}`"
    if isinstance(value, str):
        return f"`{value if value.isprintable() and value.strip() == value else json.dumps(value)}`"
    lines = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).splitlines()
    return f"`{lines[0]}`"  # a plain number is followed by the end of a document


def is_ours(cls: Any) -> bool:
    """Whether a class is Trimtab's, not trl's."""
    return cls.__module__.startswith("trimtab.")


def title(cls: Any) -> str:
    """A class's name in words: "Critic settings" of `CriticSettings`."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", cls.__name__).capitalize()


def link(heading: str) -> str:
    """A link to a heading of the same page."""
    return f"[{heading.lower()}](#{heading.lower().replace(' ', '-')})"


def kind_or_class(name: str) -> str:
    """A kind of stage with a link to it, or a class of trl's."""
    return f"`{name}`" if "." in name else f"[`{name}`](#{name})"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: `a`, `b` and `c`."""
    quoted = [f"`{name}`" for name in names]
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}" if len(quoted) > 1 else "".join(quoted)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, or nothing where it has no rows."""
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""
