"""What `data:` in a recipe may be: `trl.DatasetMixtureConfig` with further keys, and three short forms of it.

    data: trl-lib/ultrafeedback_binarized
    data: pairs.jsonl.gz                                    # json, jsonl, csv, parquet or txt, also compressed
    data: {path: $world/gold, split: test}
    data: {path: conversations.jsonl, layout: sharegpt}     # a word of pipelines/data/layouts
    data: {path: pairs.jsonl, columns: {chosen: good}, filter: score >= 4, max_rows: 1000, eval_fraction: 0.05}
    data: {datasets: [{path: a.jsonl, weight: 3}, {path: b.jsonl, weight: 1}], max_rows: 20000}

A path or hub name, one entry, or a list. Keys of the block may stand beside those of its only entry.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import trl
from trl.scripts.utils import DatasetConfig

from trimtab.pipelines.data import layouts
from trimtab.pipelines.data.filtering import checked
from trimtab.pipelines.planning.errors import RecipeError, nearest

BUILDERS = {"json": "json", "jsonl": "json", "csv": "csv", "parquet": "parquet", "txt": "text"}
TEMPLATES = {"template", "chat_template"}  # keys of other programs' data
OF_THE_MODEL = (
    "the chat template is the model's, by which it is also sampled and scored: take the key away, or give the model "
    "another one with `train.chat_template_path` of sft or reward, a Jinja file or a model that has it"
)
Overlong = Literal["drop", "truncate_left", "error"]


@dataclass
class DataEntry(DatasetConfig):
    """One dataset: trl's keys, and what is done with its rows, in this order.

    `filter` keeps the rows that a condition holds for, `columns` as a mapping gives columns the names that are needed
    (`{chosen: good}`), `layout` converts rows of another shape, `columns` as a list keeps those alone, and `max_rows`
    draws that many rows. `weight` is the dataset's share of the mixture: drawn rows, none of them twice, or with
    `max_rows` of the block exactly that many in all, where a dataset that is too small comes again. `unpacked_gb` is
    what a compressed file may become, in GB; by default 200 times its size, and 0.27 at least.
    """

    columns: list[str] | dict[str, str] | None = None
    layout: Annotated[dict[str, Any] | None, layouts.block] = None
    filter: Annotated[str | dict[str, Any] | None, checked] = None
    max_rows: int | None = None
    weight: float | None = None
    unpacked_gb: float | None = None

    def __post_init__(self) -> None:
        _require("max_rows", self.max_rows, lambda rows: rows >= 1, "at least 1")
        _require("weight", self.weight, lambda weight: weight > 0, "above 0")
        if self.weight is not None and self.fraction is not None:
            raise ValueError("`fraction` takes the first rows and `weight` draws them: give one of the two")


@dataclass
class DataMixture(trl.DatasetMixtureConfig):
    """Datasets whose rows are read one after the other.

    `eval_fraction` keeps about that share of the prompts apart: by a hash of each prompt, so that one is on the same
    side whatever other rows there are. A stage that trains evaluates on them, and `side: eval` reads them.
    `max_rows` draws that many rows of the mixture. Prompts of more than `max_prompt_tokens`, and those that leave no
    room for an answer in a model's context, are what `overlong` is about.
    Draws are by `seed`, not by the recipe's: runs that differ in their seeds see the same rows.
    """

    datasets: list[DataEntry] = field(default_factory=list)
    eval_fraction: float | None = None
    side: Literal["train", "eval"] = "train"
    max_rows: int | None = None
    max_prompt_tokens: int | None = None
    overlong: Overlong | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _require("eval_fraction", self.eval_fraction, lambda share: 0 < share < 1, "between 0 and 1")
        _require("max_rows", self.max_rows, lambda rows: rows >= 1, "at least 1")
        _require("max_prompt_tokens", self.max_prompt_tokens, lambda tokens: tokens >= 1, "at least 1")
        if self.side == "eval" and self.eval_fraction is None:
            raise ValueError("`side: eval` needs the `eval_fraction` of the rows that are read")
        weighted = [entry for entry in self.datasets if getattr(entry, "weight", None) is not None]
        if weighted and len(weighted) < len(self.datasets):
            raise ValueError("`weight` must be set for all datasets of a mixture or for none")


OF_ENTRY = {key.name for key in dataclasses.fields(DataEntry)}
OF_BLOCK = {key.name for key in dataclasses.fields(DataMixture)} - OF_ENTRY


def mixture(value: Any, path: Sequence[str] = ()) -> Any:
    """The short forms of `data:` as the mapping that a `DataMixture` takes. Raises RecipeError."""
    if isinstance(value, Mapping) and "datasets" in value:
        entries = value["datasets"] if isinstance(value["datasets"], list) else [value["datasets"]]
        return {**value, "datasets": [_entry(entry, path) for entry in entries]}
    if isinstance(value, Mapping) and not {"path", "data_files"} & set(value):
        return value  # unknown keys: the check names them
    of_block = {key: value[key] for key in value if _is_of_block(key)} if isinstance(value, Mapping) else {}
    if of_block:
        value = {key: value[key] for key in value if key not in of_block}
    return {**of_block, "datasets": [_entry(entry, path) for entry in (value if isinstance(value, list) else [value])]}


def is_mixed(block: trl.DatasetMixtureConfig) -> bool:
    """Whether what is taken of a dataset depends on the others, so that none can be looked at alone."""
    shares = [(entry.fraction, getattr(entry, "weight", None)) for entry in block.datasets]
    of_all = (getattr(block, "max_rows", None), getattr(block, "eval_fraction", None))
    return of_all != (None, None) or any(share != (None, None) for share in shares)


def _is_of_block(key: Any) -> bool:
    """Whether a key beside those of an only entry is the block's, also where it is misspelt: its check says so."""
    return key in OF_BLOCK or (key not in OF_ENTRY and nearest(key, OF_BLOCK) is not None)


def _require(key: str, value: Any, is_right: Callable[[Any], bool], words: str) -> None:
    if value is not None and not is_right(value):
        raise ValueError(f"{key} must be {words}, got {value}")


def _entry(entry: Any, place: Sequence[str]) -> Any:
    entry = {"path": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        return entry
    for key in TEMPLATES & set(entry):
        raise RecipeError(OF_THE_MODEL, (*place, key))
    suffixes = [suffix.lstrip(".") for suffix in Path(entry["path"]).suffixes[-2:]]
    builder = next((BUILDERS[suffix] for suffix in suffixes if suffix in BUILDERS), None)
    path = Path(entry["path"]).expanduser()
    if builder and "data_files" not in entry:
        _require_train(entry["path"], entry.get("split", "train"), place)
        return {**entry, "path": builder, "data_files": {"train": str(path)}}
    return {**entry, "path": str(path)} if path.is_dir() else entry


def _require_train(file: str, split: Any, place: Sequence[str]) -> None:
    """Raises RecipeError for a split that a single file has not: its rows would be those that are trained on."""
    names = re.findall(r"(\w+)(?:\[[^]]*\])?", split) if isinstance(split, str) else ["train"]
    other = next((name for name in names if name != "train"), None)
    if other is not None:
        raise RecipeError(
            f"{file} has no split {other!r}: a file's only split is train. Name the file of the others, take a slice "
            "of each (`split: train[:90%]`, `train[90%:]`), or keep some apart with `eval_fraction: 0.1` in `data`",
            (*place, "split"),
        )
