"""Where rows come from: the datasets of a mixture, their names, what they depend on, and the columns to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from trl import DatasetMixtureConfig

from trimtab.pipelines.data import converting, loading
from trimtab.pipelines.data.forms import Form, makers
from trimtab.pipelines.planning import hub
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.files import content_hash, is_local

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.planning.recipe import Step


def parts(block: DatasetMixtureConfig) -> list[DatasetMixtureConfig]:
    """The datasets of a mixture, each as a mixture of its own; one where the mixture takes a share of each."""
    if any(entry.fraction is not None for entry in block.datasets):
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
    return of_entries


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
    cure = f"Stages of kind {' or '.join(stages)} leave such rows" if stages else "Rename it in the file"
    cure = converting.cure(rows, form, source, place[-1]) or cure
    raise RecipeError(
        f"{source} has no column {missing!r}{suggest(missing, others)} "
        f"(it has: {', '.join(columns)}; needed: {needed}). {cure}",
        place,
    )
