"""What a step uses of a machine, by this process: its peak of memory, and the time of its processors."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import time
from pathlib import Path

RESET = "5"  # to Linux: the peak of resident memory begins anew (man 5 proc, clear_refs)


class Usage:
    """The use of one process from when this is made. Processes of its own, such as data loaders, are not in it."""

    def __init__(self) -> None:
        with contextlib.suppress(AttributeError):  # not glibc: then what was freed before still counts as resident
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):  # not Linux, or /proc is read-only: then the peak is the process's so far
            Path("/proc/self/clear_refs").write_text(RESET)
        if _on_cuda():
            import torch

            torch.cuda.reset_peak_memory_stats()
        self.cpu = time.process_time()

    def measured(self) -> dict[str, float]:
        """`peak_bytes`, of the GPU where there is one and else resident, and `cpu_seconds` of all its threads."""
        return {"peak_bytes": _peak(), "cpu_seconds": round(time.process_time() - self.cpu, 3)}


def largest(of_ranks: list[dict[str, float]]) -> dict[str, float]:
    """Each number of the rank that has most of it."""
    return {name: max(of_rank[name] for of_rank in of_ranks) for name in of_ranks[0]}


def _peak() -> int:
    if _on_cuda():
        import torch

        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        kilobytes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        return int(kilobytes[0]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _on_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
