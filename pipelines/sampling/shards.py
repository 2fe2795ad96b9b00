"""Sampling in shards: data-parallel, resumable and independent of the number of ranks.

A step cuts its work into a fixed list of parts. Each part is computed by one rank and kept in `parts/` of the step's
directory until the step is done, so a run that was stopped continues with the parts that are missing, also on
another number of ranks.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from tqdm.auto import tqdm

from trimtab.pipelines.data import clusters
from trimtab.pipelines.data.loading import without_progress_bars

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.planning.recipe import Step

logger = logging.getLogger(__name__)

# completions that are handed to an engine at once, and that a killed run may have to sample again: many, for its
# batches to stay full, but not so many that few parts leave ranks idle
LEAST, MOST, PARTS = 256, 4096, 64


def prompts_of_part(prompts: int, num_generations: int) -> int:
    """How many prompts make a part for an engine that batches by itself."""
    return -(-min(MOST, max(LEAST, prompts * num_generations // PARTS)) // num_generations)


def compute(step: Step, name: str, count: int, make: Callable[[int], list[dict[str, Any]]], *, group: int = 1) -> None:
    """Calls `make(part)` for every part below `count` that is not whole on disk; rank r takes parts r, r + ranks, ...

    Where a part keeps `group` ranks busy, the first of each group does it and the others wait.
    """
    distributed = PartialState()
    first, rest = divmod(distributed.process_index, group)
    mine = range(first, count if rest == 0 else 0, distributed.num_processes // group)
    missing = [part for part in mine if not _is_whole(_path(step, name, part))]
    label, hidden = f"    {step.name}, {name}", None if distributed.is_main_process else True
    for part in tqdm(missing, desc=label, disable=hidden, leave=False, mininterval=1):
        write(_path(step, name, part), make(part))
    distributed.wait_for_everyone()


def compute_on(cluster: clusters.Cluster, step: Step, name: str, count: int, make: Callable[[int], list]) -> None:
    """Has the workers of a cluster make the parts that `compute` would; the main rank asks, and the others wait."""
    distributed = PartialState()
    if distributed.is_main_process:
        paths = [_path(step, name, part).absolute() for part in range(count)]
        missing = [part for part in range(count) if not _is_whole(paths[part])]
        done = clusters.results(cluster, missing, _Written(make, paths)) if missing else ()
        for _ in tqdm(done, desc=f"    {step.name}, {name}", total=len(missing), leave=False, disable=None):
            pass
    distributed.wait_for_everyone()


@dataclass
class _Written:
    """Makes a part and writes it, in a process of a cluster."""

    make: Callable[[int], list]
    paths: list[Path]

    def __call__(self, part: int) -> None:
        write(self.paths[part], self.make(part))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes a part, which is there as a whole or not at all, also where two processes make it at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{socket.gethostname()}-{os.getpid()}")
    pq.write_table(pa.Table.from_pylist(rows), temporary, write_page_checksum=True)
    os.replace(temporary, path)


def kept(step: Step, name: str, count: int) -> int:
    """How many of the parts are on the disk."""
    return sum(_path(step, name, part).exists() for part in range(count))


def _is_whole(path: Path) -> bool:
    """Whether a part is on the disk as it was written; one that a disk has damaged is told of, and made again."""
    if not path.exists():
        return False
    try:
        pq.read_table(path, page_checksum_verification=True)
    except (OSError, ValueError) as error:  # Arrow's own are both
        logger.warning("%s is damaged and made again: %s", path, str(error).partition("\n")[0])
        return False
    return True


def collect(step: Step, name: str, count: int) -> Dataset:
    """The rows of all parts, in their order; they are mapped from the disk, and not held in memory."""
    from datasets import Dataset

    paths = [str(_path(step, name, part)) for part in range(count)]
    with without_progress_bars():
        return Dataset.from_parquet(paths, cache_dir=str(step.dir / "parts" / "mapped"))


def _path(step: Step, name: str, part: int) -> Path:
    return step.dir / "parts" / f"{name}-{part:06}.parquet"
