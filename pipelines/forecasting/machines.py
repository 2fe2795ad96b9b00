"""Machines: what they have, and what they take for each amount of work.

`machines.json` holds two sorts. A machine with `prices` was measured, by `benchmarks/forecast.py`: seconds for each of
amounts.AMOUNTS, and `memory`, the bytes that the libraries take and two factors. One with `peak` is a GPU by what its
maker published, and nothing of it was measured: TFLOPS of bfloat16 and of float32, TB a second, and the share of them
that trainings are assumed to reach.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.ranks import devices

FILE = Path(__file__).with_name("machines.json")
BUDGET = re.compile(r"(?:(\d+)x)?(\S+)")
KERNELS, KERNEL = 15, 1e-5  # that a GPU is handed for each layer, and the seconds of one
BYTES_OF_NUMBER, BYTES_OF_UPDATE = 4, 28  # that are moved: written and read; weight, gradient and Adam's two, and back


@dataclass(frozen=True)
class Machine:
    """One rank's share of a machine: `memory` bytes of a device, or of the machine where `on_cpu`.

    `count` devices are at hand. A step ends `speedup` times faster than its processor seconds, a launch takes `launch`
    seconds more, reading a byte of weights `reading`, and an operation is `slower` by that factor without bfloat16.
    """

    name: str
    count: int
    memory: float
    on_cpu: bool
    source: str
    sizes: Mapping[str, float]
    prices: Mapping[str, float]
    reading: float = 0.0
    slower: float = 1.0
    speedup: float = 1.0
    launch: float = 0.0

    def seconds(self, amounts: Mapping[str, float], weights_read: float, *, bf16: bool) -> float:
        """The time of a step; on a CPU of its processors, all threads together."""
        taken = sum(amounts[name] * price for name, price in self.prices.items()) + weights_read * self.reading
        return taken + (0 if bf16 else (self.slower - 1) * amounts["operations"] * self.prices["operations"])

    def elapsed(self, seconds: float) -> float:
        """What a clock shows of so many seconds, with nothing else on the machine."""
        return seconds / self.speedup


@functools.cache
def table() -> dict[str, dict[str, Any]]:
    """The machines that are known, by name."""
    return json.loads(FILE.read_text())["machines"]


@functools.cache
def gpu() -> dict[str, Any]:
    """What is assumed of every GPU."""
    return json.loads(FILE.read_text())["gpu"]


def at_hand() -> Machine:
    """The machine that this runs on: its GPUs where it has some, with their published sizes where they are known."""
    if devices() == 0:
        return _machine("cpu", 1, _free_memory())
    import torch

    if not torch.cuda.is_available():
        return _machine("cpu", 1, _free_memory())
    name = torch.cuda.get_device_name(0).lower()
    known = next((word for word, row in table().items() if row.get("called", "\0") in name), "a100-40")
    return _machine(known, torch.cuda.device_count(), torch.cuda.get_device_properties(0).total_memory)


def budget(text: str) -> Machine:
    """The machine of `8xh100`. Raises RecipeError, with the names that are known, for one of which nothing is."""
    match = BUDGET.fullmatch(text.lower())
    name = match[2] if match else text
    if match is None or name not in table():
        known = ", ".join(table())
        raise RecipeError(f"--budget {text}: no such machine{suggest(name, table())} (known: {known}; as in 8xh100)")
    memory = _free_memory() if "prices" in table()[name] else table()[name]["gib"] * 2**30
    return _machine(name, int(match[1] or 1), memory)


def used_disk(folder: Path) -> int:
    """The bytes that lie in a folder already, links not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*")) if folder.is_dir() else 0


def free_disk(folder: Path) -> int:
    """The bytes that are free where a folder is, or will be."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def _machine(name: str, count: int, memory: float) -> Machine:
    row = table()[name]
    if "prices" in row:
        return Machine(
            name,
            count,
            memory,
            on_cpu=True,
            source=row["source"],
            sizes=row["memory"],
            prices=row["prices"],
            speedup=1.0 if os.environ.get("OMP_NUM_THREADS") == "1" else row["speedup"],
            launch=row["launch"],
        )
    peak, reached, layer = row["peak"], gpu()["reached"], KERNELS * KERNEL
    second = 1e12 * reached["bandwidth"] * peak["tb_a_second"]  # bytes
    operation = 2 / (1e12 * reached["operations"] * peak["bf16"])
    moved = {
        "numbers": BYTES_OF_NUMBER / second,
        "attended": BYTES_OF_NUMBER / second,
        "updated": BYTES_OF_UPDATE / second,
        "tensors": 0.0,
    }
    return Machine(
        name,
        count,
        memory,
        on_cpu=False,
        source="published, not measured",
        sizes=gpu()["memory"],
        prices={**gpu()["prices"], **moved, "layers": layer, "drawn": layer, "operations": operation},
        reading=1 / second,
        slower=peak["bf16"] / peak["fp32"],
        launch=gpu()["launch"],
    )


def _free_memory() -> float:
    """The bytes that a process can have before this machine swaps."""
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    free = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    return free[0] if free else 16 * 2**30
