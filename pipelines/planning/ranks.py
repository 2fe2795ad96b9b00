"""On how many ranks a step runs, which its batch is made up by. Devices are counted without an import of torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from glob import glob
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from trimtab.pipelines import ROOT
from trimtab.pipelines.planning.yaml_limits import Limited, read

CONFIGS = ROOT / "accelerate_configs"
HANDED = "TRIMTAB_RANKS"  # what a launcher tells the ranks that it starts, so that they come to the same plan
SIGNS = ("/dev/nvidia[0-9]*", "/dev/dxg", "/dev/kfd", "/dev/dri/renderD*", "/dev/accel*", "/dev/davinci[0-9]*")


@dataclass(frozen=True)
class Ranks:
    """`every` for all steps, else what each step's accelerate configuration, `words` for accelerate and `devices` say.

    Without a number of `devices`, they are those of this machine. So many `jobs` at once have equal shares of them.
    """

    every: int | None = None
    words: tuple[str, ...] = ()
    devices: int | None = None
    jobs: int = 1

    @classmethod
    def here(cls) -> Ranks:
        """As the launcher of this process says, or all those of the process group that it is in."""
        handed = os.environ.get(HANDED)
        if handed is None:
            return cls(every=int(os.environ.get("WORLD_SIZE", "1")))
        said = json.loads(handed)
        return cls(**{**said, "words": tuple(said["words"])})

    def handed_down(self) -> dict[str, str]:
        """The environment variable by which processes that this one launches come to the same numbers."""
        devices = self.count if self.every is None else None
        return {HANDED: json.dumps(asdict(self) | {"devices": devices, "jobs": 1})}

    @property
    def count(self) -> int:
        """The accelerators of the machine, or of a job's share of it: at least one, where there are any."""
        every = devices() if self.devices is None else self.devices
        return max(every // self.jobs, min(every, 1))

    @property
    def auto(self) -> str:
        """The name of the accelerate configuration of steps that name none."""
        return "cpu" if self.count == 0 else "single" if self.count == 1 else "ddp"

    def on_cpu(self, accelerate: str) -> bool:
        """Whether a step with that accelerate configuration runs on CPUs."""
        return bool(self._settings(accelerate).get("use_cpu")) or self.count == 0

    def of(self, accelerate: str) -> int:
        """The ranks of a step with that accelerate configuration."""
        if self.every is not None:
            return self.every
        devices = 1 if self.on_cpu(accelerate) else self.count
        return self.said or self._settings(accelerate).get("num_processes") or devices

    @property
    def said(self) -> int | None:
        """The number of processes in the words for accelerate, where there is one."""
        words = " ".join(self.words).replace("=", " ").replace("--num-processes", "--num_processes").split()
        said = [int(count) for word, count in pairwise(words) if word == "--num_processes" and count.isdigit()]
        return said[-1] if said else None

    def _settings(self, accelerate: str) -> Mapping[str, Any]:
        """What the configuration says; nothing where there is none, which the check of the step tells."""
        path = config(self.auto if accelerate == "auto" else accelerate)
        return _read(path) if path else {}


def config(name: str) -> Path | None:
    """The accelerate configuration of a name from accelerate_configs, or of any path."""
    places = (CONFIGS / f"{name}.yaml", Path(name).expanduser())
    return next((path for path in places if path.is_file()), None)


@cache
def _read(path: Path) -> Mapping[str, Any]:
    """What a configuration says; nothing for one that cannot be read, which the check of the step tells."""
    try:
        settings = yaml.load(read(path), Limited)
    except (yaml.YAMLError, ValueError, OSError):
        return {}
    return settings if isinstance(settings, Mapping) else {}


@cache
def devices() -> int:
    """How many accelerators torch would see here. It is asked, for seconds, only where nothing quicker tells."""
    if sys.platform == "linux" and not any(map(glob, SIGNS)):
        return 0
    counted = _of_nvidia()
    if counted is not None:
        return counted
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def _of_nvidia() -> int | None:
    """How many GPUs nvidia-smi lists and CUDA_VISIBLE_DEVICES lets through; None where it cannot tell for torch."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    if "MIG" in listed or not _is_for_cuda():
        return None
    count = len(re.findall(r"^GPU \d+:", listed, re.MULTILINE))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return count
    indices = [word.strip() for word in visible.split(",") if word.strip()]
    return len(indices) if all(word.isdigit() and int(word) < count for word in indices) else None


def _is_for_cuda() -> bool:
    """Whether the torch that is installed was built for CUDA, as its version file says."""
    from importlib.util import find_spec

    spec = find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else Path("version.py")
    return file.is_file() and bool(re.search(r"^cuda\b.*=\s*['\"]\d", file.read_text(), re.MULTILINE))
