"""Adapters in the place of models: a folder or hub name whose weights are an update of a base, told by its files.

A step that names one works on base and adapter merged (see training/merging.py). What the base is, is then part of the
step's identity, and what cannot be merged is found in the plan.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import field_types, hub
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.files import content_hash

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SMALL = ("*.json", "*.jinja", "*.model", "*.txt")  # an adapter's files but for its weights
MODEL, TOKENIZER = "config.json", "tokenizer_config.json"
HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")
# kinds of peft that add tokens or layers to a model, which no weights of it could stand for
UNMERGEABLE = (
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "ADAPTION_PROMPT",
    "CPT",
    "POLY",
    "XLORA",
)


@dataclass(frozen=True)
class Adapter:
    """`folder` has its files; of one on the hub those in the cache, the weights perhaps not among them.

    `settings` are those of its adapter_config.json.
    """

    name: str
    folder: Path
    settings: dict[str, Any]
    on_hub: bool

    @property
    def base(self) -> str:
        """The folder or hub name of the base, "" where the adapter names none."""
        name = self.settings.get("base_model_name_or_path") or ""
        folder = Path(name).expanduser()
        return str(folder) if name and folder.is_dir() else name

    @property
    def base_revision(self) -> str | None:
        """The revision of a base on the hub."""
        return self.settings.get("revision")

    def identity(self) -> dict[str, Any]:
        """What base and adapter are: the content of folders, or a name with its revision."""
        is_folder = self.base and Path(self.base).is_dir()
        base = content_hash(self.base) if is_folder else [self.base, self.base_revision]
        if self.on_hub:  # a folder of the cache is called as the commit
            return {"adapter": [self.name, self.folder.name], "base": base}
        return {"sha256": content_hash(self.folder), "base": base}

    def complete(self) -> Path:
        """Its folder, with the weights in it also where they had to be fetched from the hub."""
        return _snapshot(self.name, self.folder.name, [*SMALL, WEIGHTS]) if self.on_hub else self.folder

    def check(self, place: Sequence[str]) -> None:
        """Raises RecipeError where base and adapter cannot be merged."""
        kind = self.settings.get("peft_type")
        if kind in UNMERGEABLE:
            raise RecipeError(f"{self.name} is an adapter of kind {kind}, which no base can be merged with", place)
        if not self.base:
            raise RecipeError(f"{self.name} is an adapter whose {CONFIG} names no base_model_name_or_path", place)
        is_folder = Path(self.base).is_dir()
        if not is_folder and not HUB_NAME.fullmatch(self.base):
            cure = f"write where it is as base_model_name_or_path into {CONFIG}"
            raise RecipeError(f"{self.name} is an adapter, and its base {self.base} is not here: {cure}", place)
        if not self.on_hub and not (self.folder / WEIGHTS).is_file():
            raise RecipeError(f"{self.name} is an adapter without {WEIGHTS}", place)
        if is_folder and find(self.base):
            raise RecipeError(f"{self.name} is an adapter of an adapter, {self.base}: merge that one first", place)
        config = _read(self.base, MODEL, self.base_revision)
        if config is None and not is_folder:
            nowhere = RecipeError(f"{self.name} is an adapter, and the hub has no base {self.base}", place)
            raise hub.unreachable(self.base, place) or nowhere
        if config and config.get("quantization_config"):
            cure = f"write the model that it was quantised from as base_model_name_or_path into {CONFIG}"
            raise RecipeError(f"{self.name} is an adapter, and its base {self.base} is quantised: {cure}", place)


def find(name: str, revision: str | None = None) -> Adapter | None:
    """The adapter that a folder or hub name is, None where it is a whole model or nothing that can be looked at."""
    file = _file(name, CONFIG, revision)
    if file is None or any(file.parent.glob("model*.safetensors")):
        return None
    on_hub = not Path(name).expanduser().is_dir()
    folder = _snapshot(name, revision, SMALL) if on_hub else file.parent
    return Adapter(name, folder, json.loads(file.read_text()), on_hub)


def source(name: str, revision: str | None, file: str) -> tuple[str, str | None]:
    """Name and revision of what has a model's `file`, such as its tokenizer's: of an adapter without it, its base."""
    adapter = find(name, revision)
    if adapter is None:
        return name, revision
    if (adapter.folder / file).is_file():
        return str(adapter.folder), None
    return adapter.base, adapter.base_revision


def models(stage: Any) -> Iterator[tuple[str, str, str | None]]:
    """(key, name, revision) of every model that a stage names in a field of its own."""
    for key, hint in field_types.hints(type(stage)).items():
        value = getattr(stage, key)
        if getattr(value, "model_name_or_path", None):
            yield key, value.model_name_or_path, value.model_revision
        elif isinstance(value, str) and any(
            isinstance(note, field_types.NamesModel) for note in field_types.notes(hint)
        ):
            yield key, value, None


def check(stage: Any, path: Sequence[str]) -> None:
    """Raises RecipeError for an adapter among the models of a stage, which `path` names, that cannot be merged."""
    for key, name, revision in models(stage):
        if adapter := find(name, revision):
            place = (*path, key) if isinstance(getattr(stage, key), str) else (*path, key, "model_name_or_path")
            adapter.check(place)


def _file(name: str, file: str, revision: str | None) -> Path | None:
    """A file of a folder or, where it can be reached, of a hub's repository."""
    folder = Path(name).expanduser()
    if folder.exists() or not HUB_NAME.fullmatch(name):
        return folder / file if (folder / file).is_file() else None
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision))
    except (OSError, ValueError):  # there is none, or no hub
        return None


def _snapshot(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder of the cache with the files of a hub's repository that match."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))


def _read(name: str, file: str, revision: str | None) -> dict[str, Any] | None:
    path = _file(name, file, revision)
    return json.loads(path.read_text()) if path else None
