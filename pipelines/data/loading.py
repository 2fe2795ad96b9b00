"""Loading the rows of a `data:` block."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trl

from trimtab.pipelines.data import expansion, filtering, holding_out, mixing, opened
from trimtab.pipelines.data.blocks import DataEntry
from trimtab.pipelines.data.converting import convert
from trimtab.pipelines.data.row_groups import read_by_groups
from trimtab.pipelines.planning import hub
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.recording import tracking

if TYPE_CHECKING:
    from datasets import Dataset

NOT_STREAMED = (
    "rows are not streamed: they are looked at before a run, and read from Arrow files on disk, so that none has to "
    "fit in memory. Take the key away; of a dataset that is larger than the disk, download the files that are needed"
)


@dataclass(frozen=True)
class Loaded:
    """The rows of a mixture, dataset by dataset, and how many of each have come how far.

    `counts` are `read`, and where it is another number: `filtered` (left out by the condition), `converted` (rows that
    a layout has made), `drawn` (taken by `max_rows` and weights), and `held_out` (on the other side).
    """

    parts: list[Dataset]
    counts: list[dict[str, int]]

    @classmethod
    def beside(cls, mixtures: Sequence[Loaded]) -> Loaded:
        """Several mixtures as one."""
        parts = chain.from_iterable(mixture.parts for mixture in mixtures)
        return cls(list(parts), list(chain.from_iterable(mixture.counts for mixture in mixtures)))


def files(entry: Any) -> list[str]:
    """The paths and names that a dataset entry reads."""
    named = entry.data_files
    named = list(named.values()) if isinstance(named, Mapping) else named
    return [named] if isinstance(named, str) else list(named or [entry.path])


def load(data: trl.DatasetMixtureConfig, path: Sequence[str] = ()) -> Dataset:
    """The rows of a mixture. Raises RecipeError when they cannot be had."""
    return joined(read(data, path).parts)


def joined(parts: list[Dataset]) -> Dataset:
    """The rows of the datasets of a mixture, one after the other."""
    import datasets

    with without_progress_bars():
        return _with_settings(datasets.concatenate_datasets(parts))


def read(data: trl.DatasetMixtureConfig, path: Sequence[str] = ()) -> Loaded:
    """The rows of a mixture, dataset by dataset. Raises RecipeError when they cannot be had."""
    names = list(chain.from_iterable(map(files, data.datasets)))
    for name in names:
        hub.require(name, path, "datasets")
        if _looks_local(name) and not _exists(name):
            near = suggest(Path(name).name, [p.name for p in Path(name).expanduser().parent.glob("*")])
            raise RecipeError(f"no such file: {name}{near}", path)
    for entry in data.datasets:
        for name in files(entry):
            expansion.check(name, getattr(entry, "unpacked_gb", None), path)
    if data.streaming:
        raise RecipeError(NOT_STREAMED, (*path, "streaming"))
    try:
        with without_progress_bars():
            return _read(data, path)
    except RecipeError:
        raise
    except StopIteration as error:  # of files without a row, from which datasets learns no columns
        raise RecipeError(f"{', '.join(names)} has no rows", path) from error
    except Exception as error:  # datasets raises a dozen kinds; the user needs the place and the reason
        if unknown := re.search(r"Unknown split ['\"](.+?)['\"]\. Should be one of (.+)", str(error)):
            there = ", ".join(re.findall(r"\w+", unknown[2]))
            raise RecipeError(
                f"{', '.join(names)} has no split {unknown[1]!r} (it has: {there})", (*path, "split")
            ) from error
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


def _read(data: trl.DatasetMixtureConfig, path: Sequence[str]) -> Loaded:
    whole = _converted(data, path)
    drawn = _shares(whole.parts, data)
    sides = _without_other_side(drawn, data, path)
    for count, taken, side in zip(whole.counts, drawn, sides, strict=True):
        made = count.get("converted", count["read"] - count.get("filtered", 0))
        count |= {"drawn": len(taken)} if made != len(taken) else {}
        count |= {"held_out": len(taken) - len(side)} if len(side) < len(taken) else {}
    return Loaded(sides, whole.counts)


def _converted(data: trl.DatasetMixtureConfig, path: Sequence[str]) -> Loaded:
    """The rows of each entry: filtered, with the names and in the form that are needed, as many as are wanted."""
    loaded, counts, dropped = [], [], Counter[str]()
    read_by_groups()
    for given in data.datasets:
        entry = given if isinstance(given, DataEntry) else DataEntry(**vars(given))  # Python code may give trl's own
        source = ", ".join(files(entry))
        rows = opened.rows(replace(entry, columns=None), files(entry))
        count = {"read": len(rows)}
        if entry.filter:
            rows = filtering.filtered(rows, entry.filter, source, path)
            count["filtered"] = count["read"] - len(rows)
        if isinstance(entry.columns, Mapping):
            rows = _renamed(rows, entry.columns, source, (*path, "columns"))
        before = len(rows)
        rows, left_out = convert(rows, entry.layout, source, path)
        count |= {"converted": len(rows)} if len(rows) != before else {}
        if isinstance(entry.columns, list):
            rows = rows.select_columns(entry.columns)
        loaded.append(mixing.drawn(rows, entry.max_rows, str(getattr(data, "seed", 0))))
        counts.append(count)
        dropped += left_out
    if dropped:
        key = path[-1] if path else "data"
        tracking.log({f"{key}/left_out/{reason}": count for reason, count in dropped.items()})
    return Loaded(loaded, counts)


def _renamed(rows: Dataset, columns: Mapping[str, str], source: str, place: Sequence[str]) -> Dataset:
    """The rows with the names that `columns` gives to columns. Raises RecipeError for a column that is not there."""
    there = rows.column_names
    for name, old in columns.items():
        if old not in there:
            near = suggest(old, there)
            raise RecipeError(f"{source} has no column {old!r}{near} (it has: {', '.join(there)})", (*place, name))
        if name in there and name not in columns.values():
            cure = f"give that another name too, as in `{{{name}: {old}, other_{name}: {name}}}`"
            raise RecipeError(f"{source} has a column {name!r} already: {cure}", (*place, name))
    if len(set(columns.values())) < len(columns):
        raise RecipeError("one column cannot have two names", place)
    return rows.rename_columns({old: name for name, old in columns.items() if old != name})


def _shares(rows: list[Dataset], data: trl.DatasetMixtureConfig) -> list[Dataset]:
    """What the mixture takes of each dataset."""
    fractions = [entry.fraction for entry in data.datasets]
    if any(fraction is not None for fraction in fractions):
        rows = _first_rows(rows, fractions)
    weights = [entry.weight for entry in data.datasets if getattr(entry, "weight", None) is not None]
    total = getattr(data, "max_rows", None)
    return mixing.mixed(rows, weights or None, total, data.seed) if weights or total else rows


def _first_rows(rows: list[Dataset], fractions: list[float | None]) -> list[Dataset]:
    """The first rows of each dataset, as many as its fraction of the largest mixture without repeats."""
    given = [fraction for fraction in fractions if fraction is not None]
    if len(given) < len(rows):
        raise ValueError("`fraction` must be set for all datasets of a mixture or for none")
    weights = [fraction / sum(given) for fraction in given]
    total = min(len(part) / weight for part, weight in zip(rows, weights, strict=True) if weight > 0)
    return [part.select(range(round(weight * total))) for part, weight in zip(rows, weights, strict=True)]


def _without_other_side(rows: list[Dataset], data: trl.DatasetMixtureConfig, path: Sequence[str]) -> list[Dataset]:
    """The rows of one side, where a mixture keeps some of its prompts apart. Raises RecipeError for an empty one."""
    fraction = getattr(data, "eval_fraction", None)
    if fraction is None:
        return rows
    is_held_out = data.side == "eval"
    sides = [part.select(holding_out.numbers(part, fraction, held_out=is_held_out)) for part in rows]
    if not any(map(len, sides)):
        side = "held out" if is_held_out else "left to train on"
        count = sum(map(len, rows))
        raise RecipeError(
            f"{fraction:g} of the prompts are held out by a hash of each, and of {count} rows none is {side}: take "
            "another fraction, or name a file of its own in `eval_data`",
            (*path, "eval_fraction"),
        )
    return sides


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
