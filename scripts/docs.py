"""Writes docs/stages.md and docs/rewards.md from the dataclasses, so that they cannot drift: `make docs`.

tests/test_docs.py fails when they have.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
import typing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trimtab.pipelines.planning import field_types, kinds, reward_blocks
from trimtab.rewards import Reward

ROOT = Path(__file__).resolve().parents[1]
HEAD = {
    "trimtab.pipelines.stages": (
        "# Stages\n\nEvery stage also takes `kind`, `seed` and `accelerate` (a name from `accelerate_configs/` or a "
        "path).\nA value `$name` is the artifact of the stage `name` above. `data` keys take a hub name, a file "
        "(json, jsonl, csv,\nparquet, txt; also compressed), a folder, `{path: ..., split: ...}`, a list of those, or "
        "`trl.DatasetMixtureConfig`\nin full. `train` and `model` blocks take exactly the keys of the trl classes "
        "named below.\n"
    ),
    "rewards": (
        "# Rewards\n\nA block `{kind: word, **keys}`; a dotted word is any importable class or function with trl's "
        "reward-function\nsignature, sync or async. What each kind of outcome does, how rewards from other systems, "
        "servers and files come in, and how\nto serve one: [using-rewards.md](using-rewards.md).\n"
    ),
}


def page(package: str) -> str:
    """The Markdown page of all kinds in a package."""
    parts = [HEAD[package]]
    for word in kinds.words(package):
        module = importlib.import_module(f"{package}.{word}")
        cls = kinds.find(package, word)
        parts.append(f"## {word}\n\n{prose(inspect.getdoc(module))}\n")
        parts.append(f"{prose(inspect.getdoc(cls))}\n")
        rows = [f"| `{field.name}` | {kind(field_types.hints(cls)[field.name])} | {default(field)} |"
                for field in dataclasses.fields(cls)]  # fmt: skip
        if rows:
            parts.append("\n".join(["| key | type | default |", "| --- | --- | --- |", *rows]) + "\n")
    return "\n".join(parts)


def prose(text: str) -> str:
    """A docstring as Markdown: indented blocks are YAML examples."""
    blocks, code = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith(("    ", "rewards: ")):
            code.append(line.removeprefix("    "))
        elif line.strip() or not code:
            if code:
                blocks += ["```yaml", *code, "```", ""]
                code = []
            blocks.append(line)
    if code:
        blocks += ["```yaml", *code, "```"]
    return "\n".join(blocks).strip()


def kind(hint: typing.Any) -> str:
    """A type as a reader of YAML would say it."""
    if typing.get_origin(hint) is typing.Annotated:
        return "reward block" if hint in (reward_blocks.RewardBlock, reward_blocks.ConstrainedReward) else "data"
    if hint is Reward:
        return "reward block"
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        name = hint.__name__
        if dataclasses.is_dataclass(hint) and not hint.__module__.startswith("trl"):
            return f"mapping: {', '.join(f'`{field.name}`' for field in dataclasses.fields(hint))}"
        return f"`trl.{name}`" if dataclasses.is_dataclass(hint) else {"str": "string"}.get(name, name)
    arguments = [kind(argument) for argument in typing.get_args(hint)]
    if typing.get_origin(hint) is dict:
        return f"mapping of {arguments[0]} to {arguments[1]}"
    if typing.get_origin(hint) is list:
        return f"list of {arguments[0]}"
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f"`{argument}`" for argument in typing.get_args(hint))
    if hint is type(None):
        return "null"
    return (
        " or ".join(a if a != "NoneType" else "null" for a in arguments) or str(hint).removeprefix("typing.").lower()
    )


def default(field: dataclasses.Field) -> str:
    """The default as YAML would write it."""
    value = field_types.default(field)
    if field.default is field.default_factory is dataclasses.MISSING:
        return "required"
    if isinstance(value, dict | list):
        return f"`{value}`"
    words = {"True": "true", "False": "false", "None": "null"}
    return f"`{words.get(str(value), value)}`"


if __name__ == "__main__":
    for package, name in (("trimtab.pipelines.stages", "stages"), ("rewards", "rewards")):
        (ROOT / "docs" / f"{name}.md").write_text(page(package))
        print(f"docs/{name}.md")
