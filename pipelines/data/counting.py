"""How many rows of each dataset of a block were read, left out on the way, and used: for done.json and the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.data import loading
from trimtab.pipelines.recording import tracking

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import DatasetMixtureConfig

    from trimtab.pipelines.planning.recipe import Step


def rows(block: DatasetMixtureConfig, step: Step, *key: str) -> Dataset:
    """The rows of the block at a key of a step, all of which it uses. Raises RecipeError when they cannot be had."""
    loaded = loading.read(block, (*step.path, *key))
    whole = loading.joined(loaded.parts)
    note(block, loaded, range(len(whole)), step, *key)
    return whole


def note(block: DatasetMixtureConfig, loaded: loading.Loaded, taken: Any, step: Step, *key: str) -> None:
    """Notes how many rows of each dataset are used: those with the numbers `taken`."""
    by_source = {}
    for name, count in counts(block, loaded, taken, step).items():
        others = {word: number for word, number in count.items() if word not in ("dropped", "used")}
        drawn = {"drawn": count["used"]} if "dropped" in count else {}
        by_source[name] = {**others, **drawn, "used": count["used"]}
    tracking.count_rows(".".join(key), by_source)


def counts(block: DatasetMixtureConfig, loaded: loading.Loaded, taken: Any, step: Step) -> dict[str, dict[str, int]]:
    """By dataset, how many rows were read, left out on the way, and are used: those with the numbers `taken`."""
    import numpy as np

    sizes = list(map(len, loaded.parts))
    of_dataset = np.histogram(taken, bins=np.concatenate([[0], np.cumsum(sizes)]))[0]
    named: dict[str, dict[str, int]] = {}
    for entry, count, size, used in zip(block.datasets, loaded.counts, sizes, of_dataset.tolist(), strict=True):
        name = _name(loading.files(entry)[0], step)
        same = sum(other.startswith(name) for other in named)
        dropped = {"dropped": size - used} if used < size else {}
        named[f"{name}-{1 + same}" if name in named else name] = {**count, **dropped, "used": used}
    return named


def _name(path: str, step: Step) -> str:
    """What counts call a dataset: a file without its ending, or the step that has left the rows, and the folder."""
    maker = step.maker(path)
    if maker is None:
        return Path(path).name.partition(".")[0]
    return "/".join([maker.name, *Path(path).relative_to(maker.output).parts])
