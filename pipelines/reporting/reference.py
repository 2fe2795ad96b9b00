"""The reference pages of all kinds, docs/stages.md, rewards.md and layouts.md, from dataclasses and docstrings.

A page cannot drift from the code: whatever it says of a key is read from the annotation of its field.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterable
from typing import Any

from trimtab.pipelines.data.forms import Form, makers, mixture
from trimtab.pipelines.planning import field_types, identity, kinds
from trimtab.pipelines.reporting.docstrings import markdown, summary
from trimtab.pipelines.reporting.keys import (
    default_text,
    is_ours,
    kind_or_class,
    link,
    listed,
    table,
    title,
    type_text,
)
from trimtab.pipelines.reporting.shows import Shows

PACKAGES = {"stages.md": kinds.STAGES, "rewards.md": kinds.REWARDS, "layouts.md": kinds.LAYOUTS}
HEADS = {
    "stages.md": """\
# Stages

Every stage also takes `kind`, `seed`, `accelerate` (a name from `accelerate_configs/` or a path) and
[`require`](#require), numbers that it has to have reached. Those that train take `batch_size`, the
[rows of an optimizer step](many-gpus.md#the-batch) on all ranks together, some with it `tokens_per_batch`, the
[tokens of a micro-batch](many-gpus.md#by-tokens), and [`optimizer`](optimizers.md) and
[`schedule`](learning-rates.md), which a macro hands on to all its trainings.
A value `$name` is the artifact of the stage `name` above. `data` keys take a hub name, a file (json, jsonl, csv,
parquet, txt; also compressed), a folder, `{path: ..., split: ...}`, a list of those, or `trl.DatasetMixtureConfig`
in full. `train` and `model` blocks take exactly the keys of the trl classes named below.

Below the keys of a stage stand the columns that its data must have, what the [report](#report) shows of a step, and
the keys that are neutral: they cannot change the result, so a step is not made again when they change.
""",
    "rewards.md": """\
# Rewards

A block `{kind: word, **keys}`; a dotted word is any importable class or function with trl's reward-function
signature, sync or async. What each kind of outcome does, how rewards from other systems, servers and files come in,
and how to serve one: [using-rewards.md](using-rewards.md).

Below the keys of a reward stand those that are neutral: they cannot change a score, so nothing is scored again when
they change.
""",
    "layouts.md": """\
# Layouts

How the rows of published datasets become rows that stages read: `data: {path: ..., layout: word}`, or
`layout: {kind: word, **keys}` with keys. When to write one, and what is done without a word: [data.md](data.md).

Below the keys of a layout stand the columns that its rows have, one set or another, and why rows are left out. Other
columns are kept as they are.
""",
}
SECTIONS = {
    "evaluation": "Evaluation",
    "reward model": "Reward models",
    "reward report": "Reward models",
    "labels": "People",
    "left out": "Data",
    "completions": "Completions",
}
ARGUMENTS = "Neutral training arguments"


def page(name: str) -> str:
    """The Markdown of a page of PACKAGES: an index, every kind, and the blocks of keys that several kinds share."""
    package = PACKAGES[name]
    classes = {word: kinds.find(package, word) for word in kinds.words(package)}
    modules = {word: importlib.import_module(f"{package}.{word}").__doc__ or "" for word in classes}
    shared = {title(cls): _section(cls, package) for cls in _shared(classes.values(), package)}
    if any(_neutral_inside(cls) for cls in classes.values()):
        shared[ARGUMENTS] = _neutral_arguments()
    index = [(f"[{word}](#{word})", summary(docstring)) for word, docstring in modules.items()]
    parts = [HEADS[name], table(("kind", "what it is"), index)]
    if shared:
        parts.append(f"Explained once for all kinds: {', '.join(map(link, shared))}.")
    for word, cls in classes.items():
        parts += [f"## {word}", markdown(modules[word]), _section(cls, package)]
    parts += [f"## {heading}\n\n{section}" for heading, section in shared.items()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _section(cls: Any, package: str) -> str:
    """What a class says of itself: its docstring, the table of its keys, and what else there is to know of them.

    Keys that it has from a class that several kinds share are not in the table.
    """
    hints, inherited = field_types.hints(cls), _inherited(cls, package)
    fields = [field for field in dataclasses.fields(cls) if field.name not in inherited]
    rows = [(f"`{field.name}`", type_text(hints[field.name]), default_text(field)) for field in fields]
    facts = "\n".join(f"- {fact}" for fact in _facts(cls, inherited))
    parts = [markdown(inspect.getdoc(cls) or ""), table(("key", "type", "default"), rows), facts]
    return "\n\n".join(part for part in parts if part)


def _facts(cls: Any, inherited: dict[str, Any]) -> list[str]:
    """A line each on further keys, on the rows of the data, on the report and on neutral keys, where there are any."""
    facts = []
    for base in dict.fromkeys(inherited.values()):
        names = [name for name, owner in inherited.items() if owner is base]
        facts.append(f"**Further keys**: {listed(names)}, explained under {link(title(base))}.")
    for form, keys in _forms(cls).items():
        kinds_of_stages = " or ".join(map(kind_or_class, makers(form)))
        maker = f", as {kinds_of_stages} leaves them" if kinds_of_stages else ""
        facts.append(f"**Rows** of {listed(keys)} hold {form}{maker}.")
    if getattr(cls, "columns", ()):
        facts.append(f"**Reads** {' or '.join(listed(columns) for columns in cls.columns)}.")
    for reason, sentence in getattr(cls, "drops", {}).items():
        facts.append(f"**Leaves out**, as `left_out/{reason}`: {sentence}.")
    if getattr(cls, "writes", ()):
        facts.append(f"**Leaves** rows of {', '.join(f'`{column}`' for column in cls.writes)}.")
    shown = _shown(getattr(cls, "shows", Shows()))
    if shown:
        facts.append(f"**Report**: {shown}.")
    if logged := getattr(cls, "logs", {}):
        facts.append(f"**Report**: of its log {', '.join(f'`{column}`' for column in logged)}.")
    neutral = [f"`{key}`" for key in getattr(cls, "neutral", ())] + _neutral_inside(cls)
    if neutral:
        facts.append(f"**Neutral**: {', '.join(neutral)}.")
    return facts


def _forms(cls: Any) -> dict[Form, list[str]]:
    """The forms of rows that the class's data has, each with its keys."""
    forms: dict[Form, list[str]] = {}
    for key, hint in field_types.hints(cls).items():
        for note in field_types.notes(hint):
            if isinstance(note, Form):
                forms.setdefault(note, []).append(key)
    return forms


def _shown(shows: Shows) -> str:
    """What the report shows of a kind."""
    curves = ", ".join(f"_{panel}_" for panel in shows.panels)
    rounds = " (one point for each round of a loop)" if shows.by_round else ""
    numbers = ", ".join(f"`{metric}`" for metric in shows.results)
    parts = [f"curves {curves}{rounds}"] if curves else []
    parts += [f"numbers {numbers}"] if numbers else []
    parts += [f"section _{SECTIONS[shows.section]}_"] if shows.section else []
    return "; ".join(parts)


def _neutral_inside(cls: Any) -> list[str]:
    """What is neutral inside the blocks of a class, in words."""
    inside = getattr(cls, "neutral_inside", lambda key, block: ())
    neutral = []
    for field in dataclasses.fields(cls):
        keys = set(inside(field.name, {}))
        if keys == set(identity.neutral_arguments({})):
            neutral.append(f"in `{field.name}` the {link(ARGUMENTS)}")
        elif keys:
            neutral.append(f"in `{field.name}` {listed(sorted(keys))}")
    return neutral


def _neutral_arguments() -> str:
    always, unless = listed(identity.TRAINING), listed(identity.TRAINING_UNLESS_BEST)
    head = "Keys of `train` about logging, saving and loading data, which cannot change the result"
    return f"{head}: {always}. Without `load_best_model_at_end` also {unless}."


def _inherited(cls: Any, package: str) -> dict[str, Any]:
    """The keys that a kind has from a class outside the package of kinds, and leaves as they are there."""
    overridden = inspect.get_annotations(cls)
    owners: dict[str, Any] = {}
    for base in reversed(cls.__mro__[1:]):
        if dataclasses.is_dataclass(base) and not base.__module__.startswith(package):
            owners |= {field.name: base for field in dataclasses.fields(base) if field.name not in overridden}
    return owners


def _shared(classes: Iterable[Any], package: str) -> list[Any]:
    """The classes that are explained once: those that kinds inherit keys from, and those of blocks inside kinds."""
    shared: set[Any] = set()
    for cls in classes:
        shared |= set(_inherited(cls, package).values())
        hints = [hint for hint in field_types.hints(cls).values() if mixture not in field_types.notes(hint)]
        blocks = [field_types.bare(hint) for hint in hints]
        shared |= {block for block in blocks if dataclasses.is_dataclass(block) and is_ours(block)}
    return sorted(shared, key=title)
