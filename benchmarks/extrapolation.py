"""Extrapolating a model of 1 GB in float32 against copying its files, and the memory that it takes.

    python benchmarks/extrapolation.py               # half a minute, 4 GB of disk
    python benchmarks/extrapolation.py --gigabytes 4 --folder /data

Copy and extrapolation alternate, with the inputs in the page cache; the medians of three are compared. Extrapolation
reads twice what a copy reads, and has its files on the disk when it returns. So copy and extrapolation are compared
when both are synced and when neither is. Memory is the peak of a fresh process less what it held after its imports.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import torch
from safetensors.torch import save_file

from trimtab.pipelines.algorithms.extrapolation import extrapolate
from trimtab.pipelines.algorithms.weights import INDEX

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 4096
MEASURE = """
import sys
from pathlib import Path
from trimtab.pipelines.algorithms.extrapolation import extrapolate
def status(key):  # of this process alone, in KiB: ru_maxrss would begin at the peak of the process that started it
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(key))
held = status("VmRSS")
extrapolate(*map(Path, sys.argv[1:]), momentum=0.3)
print((status("VmHWM") - held) * 1024)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of weights in each model")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to be measured")
    options = parser.parse_args()
    need, free = 4.5e9 * options.gigabytes, shutil.disk_usage(options.folder).free
    if free < need:
        print(f"{options.folder} has {free / 1e9:.1f} GB free and {need / 1e9:.1f} GB are needed")
        return 2
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="extrapolation-") as folder:
        return measure(Path(folder), options.gigabytes)


def measure(folder: Path, gigabytes: float) -> int:
    new, previous = folder / "new", folder / "previous"
    shapes = layers(int(gigabytes * 1e9 / 4))
    write(new, shapes, shards=3, seed=0)
    write(previous, shapes, shards=2, seed=1)
    size = sum(path.stat().st_size for path in new.iterdir())
    for path in (*new.iterdir(), *previous.iterdir()):
        path.read_bytes()  # into the page cache
    ways = copy, partial(extrapolate, previous=previous, momentum=0.3)
    found = [[[], []] for _ in ways]  # seconds of each without and with sync
    for _ in range(3):
        for synced in (False, True):
            for way, times in zip(ways, found, strict=True):
                times[synced].append(seconds(way, new, folder / "out", synced=synced))
    copied, extrapolated = ([statistics.median(runs) for runs in times] for times in found)
    shares = [theirs / ours for theirs, ours in zip(copied, extrapolated, strict=True)]
    words = [sys.executable, "-c", MEASURE, *map(str, (new, previous, folder / "out"))]
    peak = int(subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    bound = 3 * 4 * COLUMNS * max(shapes.values()) + 200e6
    print(f"{size / 1e9:.2f} GB in {len(shapes)} tensors, 3 shards against 2; seconds without sync, and with it")
    print("copy         " + ", ".join(f"{time:.2f} ({size / time / 1e9:.2f} GB/s)" for time in copied))
    print("extrapolate  " + ", ".join(f"{time:.2f} ({size / time / 1e9:.2f} GB/s)" for time in extrapolated))
    print(f"speed        {shares[0]:.2f} and {shares[1]:.2f} of a copy's")
    print(f"peak memory  {peak / 1e6:.0f} MB above the imports; bound {bound / 1e6:.0f} MB")
    facts = {
        "at least half the speed of a copy, neither synced": shares[0] >= 0.5,
        "at least half the speed of a copy, both synced": shares[1] >= 0.5,
        "memory within 3 largest tensors and 200 MB": peak <= bound,
    }
    for fact, holds in facts.items():
        print(f"{'pass' if holds else 'FAIL'}  {fact}")
    return 0 if all(facts.values()) else 1


def layers(elements: int) -> dict[str, int]:
    """The rows of each matrix of COLUMNS: an embedding of an eighth of all elements, and layers of 33 MB."""
    rows = elements // COLUMNS
    layers = {"embedding": rows // 8}
    for at in range(rows // 8, rows, 2048):
        layers[f"layer.{len(layers)}"] = min(2048, rows - at)
    return layers


def write(folder: Path, shapes: dict[str, int], shards: int, seed: int) -> None:
    folder.mkdir()
    generator, names = torch.Generator().manual_seed(seed), list(shapes)
    weights = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: torch.randn(shapes[name], COLUMNS, generator=generator) for name in names[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weights |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weights}))


def copy(new: Path, out: Path) -> None:
    out.mkdir()
    for path in new.iterdir():
        shutil.copyfile(path, out / path.name)
        with (out / path.name).open("rb") as file:
            os.fsync(file.fileno())


def seconds(make: Callable, new: Path, out: Path, *, synced: bool) -> float:
    """What making `out` takes; it is removed afterwards. Without `synced`, os.fsync does nothing."""
    with mock.patch("os.fsync") if not synced else contextlib.nullcontext():
        started = time.perf_counter()
        make(new=new, out=out)
        took = time.perf_counter() - started
    shutil.rmtree(out)
    return took


if __name__ == "__main__":
    sys.exit(main())
