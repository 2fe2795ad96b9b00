"""On how many ranks steps run, and how devices are counted without torch."""

import subprocess
import sys

import pytest

from trimtab.pipelines.planning import ranks
from trimtab.pipelines.planning.ranks import Ranks

LISTED = "GPU 0: NVIDIA H100 (UUID: GPU-aa)\nGPU 1: NVIDIA H100 (UUID: GPU-bb)\n"


@pytest.mark.parametrize(
    ("given", "accelerate", "expected"),
    [
        (Ranks(every=3), "ddp", 3),
        (Ranks(devices=0), "auto", 1),
        (Ranks(devices=8), "auto", 8),
        (Ranks(devices=8), "single", 1),
        (Ranks(devices=8), "cpu", 1),
        (Ranks(devices=8), "multi_node_ddp", 16),
        (Ranks(devices=8), "no such file", 8),  # which the check of the step says
        (Ranks(devices=8, words=("--num_processes", "2")), "single", 2),
        (Ranks(devices=8, words=("--num-processes=4",)), "multi_node_ddp", 4),
    ],
)
def test_ranks_are_what_the_launch_says_or_its_configuration_or_the_machine(given, accelerate, expected):
    assert given.of(accelerate) == expected


def test_a_launched_process_comes_to_the_launchers_numbers(monkeypatch):
    launcher = Ranks(words=("--num_processes", "2"), devices=4)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Ranks.here() == Ranks(every=2)
    for name, value in launcher.handed_down().items():
        monkeypatch.setenv(name, value)
    assert Ranks.here() == launcher


@pytest.mark.parametrize(
    ("listed", "visible", "cuda", "count"),
    [
        (LISTED, None, True, 2),
        (LISTED, "1", True, 1),
        (LISTED, "", True, 0),
        (LISTED, "0,7", True, None),  # torch has rules of its own for these, and is asked
        (LISTED, "GPU-aa", True, None),
        (LISTED, None, False, None),
        (LISTED + "  MIG 1g.10gb Device 0: (UUID: MIG-cc)\n", None, True, None),
        (None, None, True, None),
    ],
)
def test_gpus_are_counted_as_nvidia_lists_them(listed, visible, cuda, count, monkeypatch):
    def listing(*_, **__):
        if listed is None:
            raise FileNotFoundError("nvidia-smi")
        return subprocess.CompletedProcess([], 0, stdout=listed)

    monkeypatch.setattr(ranks.subprocess, "run", listing)
    monkeypatch.setattr(ranks, "_is_for_cuda", lambda: cuda)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert ranks._of_nvidia() == count


def test_they_are_what_torch_sees():
    import torch

    assert ranks.devices() == (torch.accelerator.device_count() if torch.accelerator.is_available() else 0)


def test_a_machine_without_a_sign_of_one_does_not_ask_torch(monkeypatch):
    monkeypatch.setattr(ranks, "SIGNS", ())
    monkeypatch.setitem(sys.modules, "torch", None)
    assert ranks.devices.__wrapped__() == 0
