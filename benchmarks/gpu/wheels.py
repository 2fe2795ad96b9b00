"""The wheels that a machine lacks which has torch, transformers, accelerate and peft, but neither trl nor a network.

    python benchmarks/gpu/wheels.py FOLDER      # downloads those that FOLDER lacks, lists all with their sizes

On that machine, in the root of the checkout:

    python3 -m pip install --no-index --no-deps --target /tmp/site FOLDER/*.whl
    PYTHONPATH=/tmp/site python3 benchmarks/gpu_check.py

They are for Python 3.12 on x86-64 Linux, at the versions of constraints.txt; wandb, deepspeed and vLLM are left out.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LIMIT = 64  # MiB of all
NAMES = ("trl", "datasets", "datasketch", "dill", "httpx", "multiprocess", "nltk", "pydantic", "pydantic_core",
         "tenacity", "typing_extensions", "typing_inspection", "annotated_types")  # fmt: skip
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"


def main(folder: str) -> None:
    """Downloads what is missing and prints what is there."""
    missing = [name for name in NAMES if not list(Path(folder).glob(f"{name}-*.whl"))]
    if missing:
        subprocess.run(download(folder, [pinned(name) for name in missing]), check=True)
    wheels = sorted(Path(folder).glob("*.whl"))
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 1e6:8.2f} MB  {wheel.name}")
    total = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{total / 1e6:8.2f} MB  {len(wheels)} wheels")
    if total > LIMIT << 20:
        sys.exit(f"more than {LIMIT} MiB")


def pinned(name: str) -> str:
    """A package at the version that the tests were run with."""
    lines = CONSTRAINTS.read_text().replace("-", "_").splitlines()
    return next(line for line in lines if line.startswith(f"{name}=="))


def download(folder: str, packages: list[str]) -> list[str]:
    """pip's words for wheels of another Python."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    target = ["--python-version", "3.12", "--implementation", "cp", *platforms]
    asked = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
    return [sys.executable, "-m", "pip", *asked, *target, *packages]


if __name__ == "__main__":
    main(*sys.argv[1:])
