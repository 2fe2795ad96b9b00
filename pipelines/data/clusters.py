"""Pieces of work on a Ray cluster: Ray Data hands them out, and gives those of a worker that has died to another."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

from trimtab.pipelines.planning.errors import RecipeError

T = TypeVar("T")


@dataclass(kw_only=True)
class Cluster:
    """A Ray cluster and the workers that are asked of it.

    `address` is the cluster's, `auto` for the one that this machine belongs to; without it RAY_ADDRESS says which, and
    else one is started on this machine. `num_gpus` of each worker are 1 where the cluster has GPUs, unless it is said.
    `runtime_env` is Ray's. The workers read the run directory, the models and the data where this machine does.
    """

    address: str | None = None
    workers: int = 1
    num_cpus: float = 1
    num_gpus: float | None = None
    runtime_env: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")


def check(place: Sequence[str]) -> None:
    """Raises RecipeError unless Ray can be imported."""
    if find_spec("ray") is None:
        raise RecipeError("Ray is not installed: pip install trimtab[ray], or another engine", place)


def results(cluster: Cluster, pieces: Sequence[int], work: Callable[[int], T]) -> Iterator[tuple[int, T]]:
    """Each piece with what `work` says of it, in any order, as they come. `work` is sent to every worker once.

    A cluster that this process has joined before is used as it is, and not left.
    """
    import ray

    environment: Mapping[str, Any] = cluster.runtime_env or {"env_vars": {"PYTHONPATH": os.pathsep.join(_paths())}}
    is_joined = ray.is_initialized()
    if not is_joined:
        ray.init(address=cluster.address, runtime_env=environment, log_to_driver=False)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        gpus = cluster.num_gpus if cluster.num_gpus is not None else float(ray.cluster_resources().get("GPU", 0) > 0)
        rows = ray.data.from_items([{"piece": piece} for piece in pieces], override_num_blocks=len(pieces))
        done = rows.map(
            _Worker,
            fn_constructor_args=(ray.put(work),),
            compute=ray.data.ActorPoolStrategy(size=min(cluster.workers, len(pieces))),
            num_cpus=cluster.num_cpus,
            num_gpus=gpus,
        )
        for row in done.iter_rows():
            yield row["piece"], pickle.loads(row["result"])
    finally:
        if not is_joined:
            ray.shutdown()


class _Worker(Generic[T]):
    """A process of the cluster, with the work that it was sent."""

    def __init__(self, work: Any):
        import ray

        self.work: Callable[[int], T] = ray.get(work)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"piece": row["piece"], "result": pickle.dumps(self.work(row["piece"]))}


def _paths() -> list[str]:
    """Where this process finds Python's modules, for workers on the same machine or file system."""
    import sys

    return [path for path in sys.path if path and os.path.isdir(path)]
