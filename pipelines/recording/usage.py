"""What a step uses of a machine, by this process: its peak of memory, and the time of its processors."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from pathlib import Path

RESET = "5"  # to Linux: the peak of resident memory begins anew (man 5 proc, clear_refs)


class Usage:
    """The use of one process from when this is made. Processes of its own, such as data loaders, are not in it."""

    def __init__(self) -> None:
        if "pyarrow" in sys.modules:  # what it keeps of columns that are gone is no step's
            sys.modules["pyarrow"].default_memory_pool().release_unused()
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


def resident() -> float:
    """The bytes that this process holds now, of the GPU where there is one; 0 where nobody can say."""
    if _on_cuda():
        import torch

        return torch.cuda.memory_allocated()
    return _status("VmRSS") or 0


def _peak() -> int:
    if _on_cuda():
        import torch

        return torch.cuda.max_memory_allocated()
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _status(name: str) -> int | None:
    """The bytes that Linux says of this process under a name, None where it is not Linux."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    return None


def _on_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
