"""Where rows come from: the datasets of a mixture, their names, what they depend on, and the columns to look at."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from trl import DatasetMixtureConfig

from trimtab.pipelines.data import blocks, converting, loading
from trimtab.pipelines.data.forms import Form, makers
from trimtab.pipelines.planning import hub, kinds
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.files import content_hash, is_local

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.planning.recipe import Step

UNREAD = ("max_prompt_tokens", "overlong")  # keys of a block that change nothing of what is read


def parts(block: DatasetMixtureConfig) -> list[DatasetMixtureConfig]:
    """The datasets of a mixture, each as a mixture of its own; one where the mixture takes a share of each."""
    if blocks.is_mixed(block):
        return [block]
    return [dataclasses.replace(block, datasets=[entry]) for entry in block.datasets]


def source(block: DatasetMixtureConfig) -> str:
    """The files of a data block, for a message."""
    return ", ".join(chain.from_iterable(map(loading.files, block.datasets)))


def identity(block: DatasetMixtureConfig, place: Sequence[str]) -> Any:
    """What the rows of a block depend on: the content of local files, and of the Hub's what was loaded of them."""
    of_entries = []
    for entry in block.datasets:
        options = {
            key: value for key, value in vars(entry).items() if key not in ("path", "data_files", "unpacked_gb")
        }
        names = loading.files(entry)
        if all(map(is_local, names)):
            hashes = [content_hash(name) for name in names]
        else:
            rows = loading.load(DatasetMixtureConfig(datasets=[entry]), place)
            hashes = [content_hash(file["filename"]) for file in rows.cache_files]
        of_entries.append([options, hashes, converting.version(options.get("layout"))])
    of_block = {key: value for key, value in vars(block).items() if key not in ("datasets", *UNREAD)}
    return [of_block, of_entries]


def check_splits(block: DatasetMixtureConfig, step: Step, place: Sequence[str]) -> None:
    """Raises RecipeError for a split of what a step above has still to leave, and will not."""
    for entry in block.datasets:
        above = step.maker(loading.files(entry)[0])
        if above is None or kinds.is_withheld(kinds.STAGES, above.kind):
            continue
        maker = kinds.find(kinds.STAGES, above.kind)
        there = maker.splits or (("train",) if maker.writes else ())
        names = re.findall(r"(\w+)(?:\[[^]]*\])?", entry.split)
        other = next((name for name in names if there and name not in there), None)
        if other is not None:
            cure = "take slices, `split: train[:90%]` and `train[90%:]`, or `eval_fraction: 0.1` in `data`"
            leaves = "the split train alone" if there == ("train",) else f"the splits {' and '.join(there)}"
            near = suggest(other, there)
            raise RecipeError(f"{above.name} leaves {leaves}, and no {other!r}{near}: {cure}", (*place, "split"))


def check_apart(block: DatasetMixtureConfig, held_out: DatasetMixtureConfig, place: Sequence[str]) -> None:
    """Raises RecipeError where a dataset is trained on and evaluated on."""
    sides = {(getattr(one, "eval_fraction", None), getattr(one, "side", "train")) for one in (block, held_out)}
    if len(sides) == 2 and len({fraction for fraction, _ in sides}) == 1:
        return
    for entry in held_out.datasets:
        if any(_is_same(entry, other) for other in block.datasets):
            name = ", ".join(loading.files(entry))
            raise RecipeError(
                f"{name} (split {entry.split}) is also trained on: the evaluation would measure memory. Name other "
                "rows, or write `eval_fraction: 0.1` in `data` and no `eval_data` (or `audit: {overlap: warn}`)",
                place,
            )


def _is_same(one: Any, other: Any) -> bool:
    """Whether two datasets are the same rows, or those of one are some of the other's."""
    keys = ("path", "name", "data_dir", "filter", "max_rows")
    if loading.files(one) != loading.files(other) or any(
        getattr(one, key, 0) != getattr(other, key, 0) for key in keys
    ):
        return False
    splits = {one.split, other.split}
    return len(splits) == 1 or any(f"{split.partition('[')[0]}" in splits for split in splits if "[" in split)


def check_columns(block: DatasetMixtureConfig, step: Step, key: str, form: Form) -> None:
    """The part of the audit that costs little: the columns of the files that are here. Raises RecipeError."""
    for part in parts(block):
        names = list(chain.from_iterable(map(loading.files, part.datasets)))
        if not any(step.pending(name) or hub.is_name(name) for name in names):
            place = (*step.path, *key.split("."))
            columns_of(loading.load(part, place), form, source(part), place)


def columns_of(rows: Dataset, form: Form, source: str, place: Sequence[str]) -> list[str]:
    """The columns to look at. Raises RecipeError where the form's are not there, or where they are not all."""
    columns = rows.column_names
    for wanted in form.columns:
        if set(wanted) <= set(columns):
            objection = converting.objection(rows, wanted, form, source, place[-1]) if "tokens" in form.audit else None
            if objection:
                raise RecipeError(objection, place)
            prompt = ["prompt"] if "prompt" in columns and "prompt" not in wanted else []
            return [*prompt, *wanted]
    nearest = max(form.columns, key=lambda wanted: len(set(wanted) & set(columns)))
    missing = next(name for name in nearest if name not in columns)
    others = [column for column in columns if column not in nearest]
    needed = " or ".join(" + ".join(wanted) for wanted in form.columns)
    stages = makers(form)
    cure = (
        f"Stages of kind {' or '.join(stages)} leave such rows"
        if stages
        else f"Give another column that name: `columns: {{{missing}: ITS_NAME}}`"
    )
    cure = converting.cure(rows, form, source, place[-1]) or cure
    raise RecipeError(
        f"{source} has no column {missing!r}{suggest(missing, others)} "
        f"(it has: {', '.join(columns)}; needed: {needed}). {cure}",
        place,
    )
