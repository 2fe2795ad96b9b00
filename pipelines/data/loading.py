"""Loading the rows of a `data:` block."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trl

from trimtab.pipelines.data import expansion
from trimtab.pipelines.data.converting import convert
from trimtab.pipelines.planning import hub
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.recording import tracking

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
    for entry in data.datasets:
        for name in files(entry):
            expansion.check(name, getattr(entry, "unpacked_gb", None), path)
    try:
        with without_progress_bars():
            return _with_settings(_joined(data, path))
    except RecipeError:
        raise
    except StopIteration as error:  # of files without a row, from which datasets learns no columns
        raise RecipeError(f"{', '.join(names)} has no rows", path) from error
    except Exception as error:  # datasets raises a dozen kinds; the user needs the place and the reason
        splits = ", ".join(entry.split for entry in data.datasets)
        missing = (hub.unreachable(name, path) for name in names)
        message = f"cannot load {', '.join(names)} (split {splits}): {type(error).__name__}: {error}"
        raise next(filter(None, missing), None) or RecipeError(message, path) from error


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Hides the bars of datasets: reading and joining is quick; tokenising, which may not be, keeps its own."""
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()


def _joined(data: trl.DatasetMixtureConfig, path: Sequence[str]) -> Dataset:
    """The rows of all entries, each converted, in the shares that the mixture gives them, as in `trl.get_dataset`."""
    import datasets

    if data.streaming:
        raise RecipeError("rows are not streamed: they are looked at before a run, and lie on disk", path)
    parts, dropped = [], Counter[str]()
    for entry in data.datasets:
        loaded = trl.get_dataset(trl.DatasetMixtureConfig(datasets=[replace(entry, columns=None)]))["train"]
        layout = getattr(entry, "layout", None)  # an entry that Python code has made may be trl's own
        rows, left_out = convert(loaded, layout, ", ".join(files(entry)), path)
        parts.append(rows if entry.columns is None else rows.select_columns(entry.columns))
        dropped += left_out
    if dropped:
        key = path[-1] if path else "data"
        tracking.log({f"{key}/left_out/{reason}": count for reason, count in dropped.items()})
    rows = datasets.concatenate_datasets(_shares(parts, [entry.fraction for entry in data.datasets]))
    if data.test_split_size is None:
        return rows
    return rows.train_test_split(test_size=data.test_split_size, seed=0)["train"]  # the same on every rank


def _shares(parts: list[Dataset], fractions: list[float | None]) -> list[Dataset]:
    """The first rows of each dataset, as many as its fraction of the largest mixture that repeats none."""
    given = [fraction for fraction in fractions if fraction is not None]
    if not given:
        return parts
    if len(given) < len(parts):
        raise ValueError("`fraction` must be set for all datasets of a mixture or for none")
    weights = [fraction / sum(given) for fraction in given]
    total = min(len(rows) / weight for rows, weight in zip(parts, weights, strict=True) if weight > 0)
    return [rows.select(range(round(weight * total))) for rows, weight in zip(parts, weights, strict=True)]


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
