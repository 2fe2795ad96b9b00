"""A recipe as text: what is to be done by hand at its top, and beside each key what it was."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from trimtab.pipelines.importing.draft import Draft, Entry, Verdict
from trimtab.pipelines.planning import credentials
from trimtab.pipelines.planning.yaml_words import Dumper

WIDTH = 120
BLOCKS = ("model", "train", "rewards")  # written key by key
ORDER = ("kind", "seed", "batch_size", "model", "data", "eval_data", "method", "trainer", "rewards")


def text(title: str, stages: Mapping[str, Draft]) -> str:
    """The recipe's YAML with its comments."""
    lines = [*_top(title, stages), "", "stages:"]
    for name, draft in stages.items():
        lines += [*_stage(name, draft), ""]
    return "\n".join(lines).rstrip() + "\n"


def table(stages: Mapping[str, Draft]) -> str:
    """One line a key: its stage, what became of it, where it stands, and why."""
    rows = [
        (name, entry.key, str(entry.verdict), entry.to and f"{name}.{entry.to}", entry.why)
        for name, draft in stages.items()
        for entry in draft.entries
    ]
    rows.insert(0, ("stage", "key", "verdict", "now", "why"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
             for row in rows]  # fmt: skip
    return "\n".join([*lines, counted(stages)])


def counted(stages: Mapping[str, Draft]) -> str:
    """How many keys there were, and what became of them."""
    counts = Counter(entry.verdict for draft in stages.values() for entry in draft.entries)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)
    return f"{counts.total()} keys: {said}"


def _top(title: str, stages: Mapping[str, Draft]) -> Iterator[str]:
    yield f"# {title}"
    yield f"# {counted(stages)}"
    by_hand = [f"{name}: {note}" for name, draft in stages.items() for note in dict.fromkeys(draft.notes)]
    unknown = _reasons(stages, Verdict.UNKNOWN)
    if by_hand or unknown:
        yield from ("#", "# To do by hand:")
        for line in (*by_hand, *unknown):
            yield from _comment(line)
    if dropped := _reasons(stages, Verdict.DROPPED):
        yield from ("#", "# Left out:")
        for line in dropped:
            yield from _comment(line)


def _reasons(stages: Mapping[str, Draft], verdict: Verdict) -> list[str]:
    """A line for each reason, with the keys that it is the reason of."""
    keys: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, draft in stages.items():
        for entry in draft.entries:
            if entry.verdict is verdict:
                keys[name, entry.why].append(_shown(entry))
    return [f"{name}: {', '.join(shown)}: {why}" for (name, why), shown in keys.items()]


def _shown(entry: Entry) -> str:
    """The key with its value, where that is short and no secret."""
    value = _flow(entry.value) if entry.value is not None else ""
    secret = credentials.is_secret(entry.key.replace(".", "_"), entry.value) or "wandb" in entry.key
    return entry.key if not value or secret or len(value) > 40 else f"{entry.key} {value}"


def _comment(line: str) -> Iterator[str]:
    first, *rest = textwrap.wrap(line, WIDTH - 6, break_long_words=False, break_on_hyphens=False)
    yield f"#   {first}"
    for more in rest:
        yield f"#     {more}"


def _stage(name: str, draft: Draft) -> Iterator[str]:
    yield f"  {name}:"
    block = {**({"kind": draft.kind} if name != draft.kind else {}), **draft.block}
    ordered = sorted(block, key=lambda key: ORDER.index(key) if key in ORDER else len(ORDER) + (key == "train"))
    for key in ordered:
        value = block[key]
        if key in BLOCKS and isinstance(value, Mapping):
            yield f"    {key}:"
            for inner, item in value.items():
                yield from _line(6, inner, item, draft.entry(f"{key}.{inner}"))
        else:
            yield from _line(4, key, value, draft.entry(key) or _inside(draft, key))
    if "train" not in block:
        yield "    train: {}"


def _inside(draft: Draft, key: str) -> Entry | None:
    return next((entry for entry in draft.entries if entry.to.startswith(f"{key}.")), None)


def _line(indent: int, key: str, value: Any, entry: Entry | None) -> Iterator[str]:
    said = _said(entry, key)
    line = f"{' ' * indent}{key}: {_flow(value)}"
    if said and len(line) + len(said) + 4 > WIDTH:
        for part in textwrap.wrap(said, WIDTH - indent - 2):
            yield f"{' ' * indent}# {part}"
        said = ""
    yield f"{line}  # {said}" if said else line


def _said(entry: Entry | None, key: str) -> str:
    if entry is None or entry.verdict is Verdict.KEPT:
        return ""
    was = "" if entry.key == key else f"was {entry.key}"
    return "; ".join(part for part in (was, entry.why) if part)


def _flow(value: Any) -> str:
    dumped = yaml.dump(value, Dumper=Dumper, default_flow_style=True, width=float("inf"), sort_keys=False)
    return dumped.removesuffix("\n").removesuffix("\n...").strip()
