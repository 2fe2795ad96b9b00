"""The check for a machine with a GPU: each part is kept as it ends, has a limit, and is not done twice."""

import importlib.util
import json
import sys

import pytest
from conftest import ROOT


@pytest.fixture
def check():
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "benchmarks" / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def record(folder, part):
    return json.loads((folder / f"{part}.json").read_text())


def test_parts_are_kept_limited_and_not_done_twice(check, tmp_path, capsys, monkeypatch):
    program = "import pathlib, sys, time; print('{\"a\": 1}', flush=True); time.sleep(float(sys.argv[1]))"
    words = {"quick": "0", "slow": "600", "wrong": "none"}
    limits = {"quick": 60, "slow": 0.6, "wrong": 60}

    def part(name):
        return check.Part(limits[name], lambda out, size: check.python("-c", program, words[name]), check.last_line)

    monkeypatch.setattr(check, "LEAST", 0.1)
    monkeypatch.setattr(check, "PARTS", {name: part(name) for name in words})
    assert check.main(["size=tiny", f"out={tmp_path}"]) == 2
    codes = {name: record(tmp_path, name)["code"] for name in words}
    assert codes == {"quick": 0, "slow": 124, "wrong": 1}
    assert record(tmp_path, "slow")["result"] == {"a": 1}  # what a part had said when its time was up
    capsys.readouterr()
    assert check.main(["size=tiny", "parts=quick,slow", "minutes=0", f"out={tmp_path}"]) == 1
    told = capsys.readouterr().out
    assert "quick: done before" in told
    assert "slow: no time left" in told


@pytest.mark.slow
def test_a_cpu_is_probed_and_trains_a_tiny_model(check, tmp_path):
    assert check.main(["parts=probe", "size=tiny", f"out={tmp_path}"]) == 0
    assert record(tmp_path, "probe")["result"]["packages"]["trl"]


def test_wheels_are_pinned_as_the_tests_are():
    spec = importlib.util.spec_from_file_location("wheels", ROOT / "benchmarks" / "gpu" / "wheels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pins = {module.pinned(name) for name in module.NAMES}
    assert "trl==1.16.0" in pins
    assert len(pins) == len(module.NAMES)
