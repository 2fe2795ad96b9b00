"""The shrunk form of a recipe, as a file to look at.

    python scripts/run.py recipes/mistral-7b/apo.yaml --shrink

What comes out of it is worthless; that it comes out shows that the recipe's stages fit together, before a GPU is
rented. Hub models become random ones of their family, hub data a few rows in the same form, reward models from outside
tiny ones, and servers a reward on length. Everything else is the recipe's own. What changes in a stage is said by its
class (`Stage.small`), by default from the types of its fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trimtab.pipelines.planning import batch, bounds, field_types, kinds
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.references import is_reference
from trimtab.pipelines.planning.yaml_words import Dumper
from trimtab.pipelines.shrinking.miniature import TRAIN, Miniature

FOLDER = Path("runs") / "shrunk"


def shrunk(path: str, overrides: Sequence[str] = ()) -> str:
    """The path of the shrunk recipe, in `runs/shrunk`, with the rows and models that it names.

    Raises RecipeError for a model of no known family, or data in a form that nobody writes by hand.
    """
    document = Document.read(path, overrides)
    stages = _without_inputs(document.values.get("stages") or {}, document.values.get("inputs") or {})
    miniature = Miniature(FOLDER, frozenset(stages))
    words = [f"output_dir={FOLDER}", "wandb=false"]
    words += [f"defaults.train.{key}={json.dumps(value)}" for key, value in TRAIN.items()]
    words += [f"defaults.{key}=null" for key in batch.KEYS if key in (document.values.get("defaults") or {})]
    for name, block in stages.items():
        block = block or {}
        stage = kinds.find(kinds.STAGES, block.get("kind", name), ("stages", name))
        changes = {"accelerate": "cpu", **stage.small(block, miniature)}
        if block.get(bounds.KEY) and bounds.KEY not in field_types.hints(stage):
            changes[bounds.KEY] = None  # a shrunk run reaches nothing
        words += [f"stages.{name}.{key}={json.dumps(value)}" for key, value in changes.items()]
    values = Document.read(path, [*overrides, *words]).values
    values |= _points(values, [word.partition("=")[0] for word in words])
    target = FOLDER / f"{values.get('name') or Path(path).stem}.yaml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(yaml.dump(values, Dumper=Dumper, sort_keys=False))
    return str(target)


def _points(values: Mapping[str, Any], changed: Sequence[str]) -> dict[str, Any]:
    """Sweep, arms and search without what shrinking has changed, and no more than two trials."""

    def kept(block: Mapping[str, Any]) -> dict[str, Any]:
        return {path: value for path, value in block.items() if not any(_overlap(path, other) for other in changed)}

    points: dict[str, Any] = {}
    if isinstance(values.get("sweep"), dict):
        points["sweep"] = kept(values["sweep"])
    if isinstance(values.get("arms"), dict):
        arms = {name: kept(block or {}) for name, block in values["arms"].items()}
        distinct = {json.dumps(block, sort_keys=True): name for name, block in reversed(arms.items())}
        points["arms"] = {name: arms[name] for name in arms if name in distinct.values()}
    if isinstance(values.get("search"), dict):
        points["search"] = values["search"] | {"trials": 2}
    return points


def _overlap(path: str, other: str) -> bool:
    """Whether one of two dotted paths is the other, or lies in it."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _without_inputs(value: Any, inputs: Mapping[str, str]) -> Any:
    """The stages with what `inputs` stand for in the place of their names."""
    if isinstance(value, Mapping):
        return {key: _without_inputs(item, inputs) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_inputs(item, inputs) for item in value]
    return inputs.get(value[1:], value) if is_reference(value) else value
