"""What is measured of one run of a side: seconds, processor seconds, and the tokens that went through a model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook


@dataclass
class Measured:
    """One run of a side.

    `values` are what has to be equal on all sides: losses and norms of gradients, scores or log-probabilities.
    `computed` counts the tokens of every forward pass, padding and repeated passes with them, in thousands; `before`
    are the seconds of what is done once, in front of what is timed.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    before: float = 0.0
    computed: float = 0.0
    work: float = 1.0  # by which the seconds are divided: thousands of tokens, where sides draw different numbers
    values: list[float] = field(default_factory=list)
    gap: float | None = None  # how far a side is from what it should be, where it has looked by itself


@dataclass(frozen=True)
class Side:
    """One way to do the work: `name`, whose code it is, and whether its values are the reference of the equality."""

    name: str
    is_ours: bool
    run: Callable[[], Measured]


@contextlib.contextmanager
def timed(measured: Measured) -> Iterator[None]:
    """Adds what happens inside."""
    wall, cpu = time.perf_counter(), time.process_time()
    with counted(measured):
        yield
    measured.seconds += time.perf_counter() - wall
    measured.cpu += time.process_time() - cpu


@contextlib.contextmanager
def counted(measured: Measured) -> Iterator[None]:
    """Counts the token ids that are looked up."""

    def count(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Embedding):
            measured.computed += args[0].numel() / 1000

    hook = register_module_forward_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def training(measured: Measured) -> Iterator[None]:
    """Times every `train()` of a transformers Trainer inside, and takes its losses and norms of gradients."""
    train = transformers.Trainer.train

    def timed_train(self: Any, *args: Any, **kwargs: Any) -> Any:
        with timed(measured):
            output = train(self, *args, **kwargs)
        logs = [row for row in self.state.log_history if "loss" in row]
        measured.values = [value for row in logs for value in (row["loss"], float(row["grad_norm"]))]
        return output

    transformers.Trainer.train = timed_train
    try:
        yield
    finally:
        transformers.Trainer.train = train


@contextlib.contextmanager
def before(measured: Measured, owner: Any, name: str) -> Iterator[None]:
    """Times every call of a method that stands in front of a training."""
    method = getattr(owner, name)

    def timed_method(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            measured.before += time.perf_counter() - started

    setattr(owner, name, timed_method)
    try:
        yield
    finally:
        setattr(owner, name, method)


@contextlib.contextmanager
def trl_as_it_comes() -> Iterator[None]:
    """Takes back, inside, what our stages change in trl on a CPU."""
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    ours = utils._use_triton, chunked_logprob.TOKEN_CHUNK_SIZE
    utils._use_triton, chunked_logprob.TOKEN_CHUNK_SIZE = AS_IT_COMES
    try:
        yield
    finally:
        utils._use_triton, chunked_logprob.TOKEN_CHUNK_SIZE = ours


def _as_it_comes() -> tuple[Any, int]:
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    return utils._use_triton, chunked_logprob.TOKEN_CHUNK_SIZE


AS_IT_COMES = _as_it_comes()


def peak(threads: int) -> float:
    """Floating-point operations a second of one large matrix product in float32, on as many threads: the best of 5."""
    torch.set_num_threads(threads)
    size = 1536
    left, right = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def profile(sides: Iterable[Side]) -> None:
    """Prints the operations that take the most processor time of each side."""
    for side in sides:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            side.run()
        table = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40)
        print(f"\n{side.name}\n{table}")
