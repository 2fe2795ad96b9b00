"""Part `probe` of benchmarks/gpu_check.py: what the machine has, and what its device reaches, as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import _checkout  # noqa: F401
import torch

NAMES = ("torch", "triton", "transformers", "trl", "accelerate", "peft", "datasets", "flash_attn", "deepspeed", "vllm")


def main() -> None:
    """Prints one line for a person, and the record as the last one."""
    from trimtab.rewards import _packed_attention

    record: dict[str, Any] = {
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in NAMES},
        "varlen": sorted(_packed_attention.VARLEN) if _packed_attention.varlen_attn else None,
        "accelerator": torch.accelerator.is_available(),
    }
    if torch.cuda.is_available():
        record |= of_cuda()
    print(json.dumps(record))


def version(name: str) -> str | None:
    """The version of a package, where it is installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def of_cuda() -> dict[str, Any]:
    """The device, its memory and its driver, and what a product, a copy and positions in TF32 come to."""
    free, total = torch.cuda.mem_get_info()
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "device": torch.cuda.get_device_name(),
        "devices": torch.cuda.device_count(),
        "driver": driver,
        "free_gib": free / 2**30,
        "total_gib": total / 2**30,
        "bf16_tflops": products(torch.bfloat16),
        "tf32_tflops": products(torch.float32, "tf32"),
        "fp32_tflops": products(torch.float32, "ieee"),
        "copy_tb_per_second": copies(),
        "positions_in_tf32_are_off_by": positions(),
    }


def seconds_of(work: Any, times: int = 10) -> float:
    """Seconds of `work` on the device, the mean of some after three that warm up."""
    for _ in range(3):
        work()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / times


def products(dtype: torch.dtype, precision: str = "ieee", size: int = 8192) -> float:
    """TFLOP/s of square products of random numbers."""
    torch.backends.cuda.matmul.fp32_precision = precision
    one, other = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: one @ other) / 1e12


def copies(size: int = 1 << 30) -> float:
    """TB a second, read and written, of a copy on the device."""
    source = torch.empty(size, dtype=torch.float32, device="cuda").normal_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_of(lambda: target.copy_(source)) / 1e12


def positions() -> float:
    """How far TF32 moves the angles of rotary embeddings at most, in radians, made by a product as some models do."""
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    frequencies = 10000 ** -(torch.arange(0, 64, 2, device="cuda").float() / 64)
    places = torch.arange(4096, device="cuda").float()
    return float((frequencies[None, :, None] @ places[None, None] - frequencies[:, None] * places).abs().max())


if __name__ == "__main__":
    main()
