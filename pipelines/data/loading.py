"""Loading the rows of a `data:` block."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trl

from trimtab.pipelines.planning import hub
from trimtab.pipelines.planning.errors import RecipeError, suggest

if TYPE_CHECKING:
    from datasets import Dataset


def files(entry: Any) -> list[str]:
    """The paths and names that a dataset entry reads."""
    named = entry.data_files
    named = list(named.values()) if isinstance(named, Mapping) else named
    return [named] if isinstance(named, str) else list(named or [entry.path])


def load(data: trl.DatasetMixtureConfig, path: Sequence[str] = ()) -> Dataset:
    """The rows of a mixture. Raises RecipeError when they cannot be had."""
    names = list(chain.from_iterable(map(files, data.datasets)))
    for name in names:
        if _looks_local(name) and not _exists(name):
            near = suggest(Path(name).name, [p.name for p in Path(name).expanduser().parent.glob("*")])
            raise RecipeError(f"no such file: {name}{near}", path)
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # reading is quick; tokenising, which may not be, keeps its bars
    try:
        return _with_settings(trl.get_dataset(data)["train"])
    except StopIteration as error:  # of files without a row, from which datasets learns no columns
        raise RecipeError(f"{', '.join(names)} has no rows", path) from error
    except Exception as error:  # datasets raises a dozen kinds; the user needs the place and the reason
        splits = ", ".join(entry.split for entry in data.datasets)
        missing = (hub.unreachable(name, path) for name in names)
        message = f"cannot load {', '.join(names)} (split {splits}): {type(error).__name__}: {error}"
        raise next(filter(None, missing), None) or RecipeError(message, path) from error
    finally:
        if not hidden:
            datasets.enable_progress_bars()


def _with_settings(rows: Dataset) -> Dataset:
    """The rows with an empty `chat_template_kwargs` where it is null, which no trainer of trl's takes."""
    name = "chat_template_kwargs"
    if name not in rows.column_names or not rows.data.column(name).null_count:
        return rows
    from datasets import Json

    features = rows.features.copy()
    features[name] = Json()  # each row has its own keys
    return rows.map(lambda row: {name: row[name] or {}}, features=features)


def _looks_local(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or bool(re.search(r"\.(jsonl?|csv|parquet|txt)(\.\w+)?$", name))


def _exists(name: str) -> bool:
    path = Path(name).expanduser()
    return path.exists() or ("*" in name and any(Path().glob(name))) or "://" in name
