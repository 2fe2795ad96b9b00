"""Extrapolated models against float64: every shape, shard and dtype; and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from model_folders import assert_close, expected, load, moved, random, save, state
from safetensors import safe_open

from trimtab.pipelines.algorithms import weights
from trimtab.pipelines.algorithms.extrapolation import extrapolate
from trimtab.pipelines.algorithms.weights import INDEX, SINGLE


@pytest.fixture
def small_pieces(monkeypatch):
    """Tensors of a few thousand numbers come in many pieces too."""
    monkeypatch.setattr(weights, "PIECE", 64)


@pytest.fixture
def pair(tmp_path):
    """Writes `previous` and `new`, and returns a function that extrapolates them."""

    def pair(new, previous, a=0.3, shards=(1, 1)):
        folders = (save(tmp_path / "new", new, shards[0]), save(tmp_path / "previous", previous, shards[1]))
        return extrapolate(*folders, tmp_path / "out", a)

    return pair


@pytest.fixture
def refused(pair, tmp_path):
    """Expects a ValueError that leaves no file, and returns its message."""

    def refused(new, previous, **options):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            pair(new, previous, **options)
        assert not list((tmp_path / "out").glob("*") if (tmp_path / "out").exists() else ())
        return str(caught.value)

    return refused


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("shards", [(1, 1), (3, 2), (2, 1), (1, 3)])
def test_extrapolation_against_float64(pair, tmp_path, shards):
    previous = state()
    new = moved(previous)
    metrics = pair(new, previous, shards=shards)
    assert_close(load(tmp_path / "out"), expected(new, previous, 0.3))
    step = sum((new[name].double() - previous[name].double()).square().sum() for name in new) ** 0.5
    size = sum(value.double().square().sum() for value in new.values()) ** 0.5
    assert metrics == {
        "step_norm": pytest.approx(step.item(), rel=1e-5),
        "weight_norm": pytest.approx(size.item(), rel=1e-5),
        "relative_step": pytest.approx((step / size).item(), rel=1e-5),
        "tensors": 6,
    }


def test_the_output_is_sharded_as_new_and_knows_its_dtype(pair, tmp_path):
    previous = state()
    previous = {name: value.bfloat16() for name, value in previous.items()}
    pair(moved(previous, scale=1.0), previous, shards=(3, 2))
    out, new = tmp_path / "out", tmp_path / "new"
    assert {path.name for path in out.iterdir()} == {path.name for path in new.iterdir()}
    indices = [json.loads((folder / INDEX).read_text()) for folder in (out, new)]
    assert indices[0]["weight_map"] == indices[1]["weight_map"]
    size = sum(value.numel() for value in previous.values())
    assert indices[0]["metadata"] == {"total_size": 4 * size, "total_parameters": 7}
    for file in out.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}
    config = json.loads((out / "config.json").read_text())
    assert config == {"dtype": "float32", "text_config": {"torch_dtype": "float32"}}


def test_what_is_no_weight_comes_along(pair, tmp_path):
    previous = {"w": random(4, 4)}
    new = save(tmp_path / "new", moved(previous))
    kept = ["tokenizer.json", "chat_template.jinja", "merges.txt", "additional_chat_templates/tool.jinja"]
    left = ["training_args.bin", "optimizer.pt", "x.pkl", "modeling_x.py", "adapter_config.json", "old/x.json"]
    for name in kept + left:
        (new / name).parent.mkdir(exist_ok=True)
        (new / name).write_text(name)
    extrapolate(new, save(tmp_path / "previous", previous), tmp_path / "out", 0.3)
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {*kept, "config.json", SINGLE}


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_momentum_copies_every_bit(pair, tmp_path, dtype):
    new = {name: value.to(dtype) for name, value in state().items()}
    new["embed"][0, :2] = torch.tensor([-0.0, 0.0])
    new["steps"] = torch.tensor([3, 4])
    previous = {name: value if name == "steps" else value + 1e-3 for name, value in new.items()}
    pair(new, previous, a=0.0, shards=(2, 1))
    for path in (tmp_path / "new").glob("*.safetensors"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "out" / "config.json").read_text() == (tmp_path / "new" / "config.json").read_text()


def test_equal_buffers_are_copied(pair, tmp_path):
    previous = {"w": random(4, 4), "inv_freq": random(8), "ids": torch.arange(5), "mask": torch.tensor([True, False])}
    new = {**previous, "w": previous["w"] + 1}
    metrics = pair(new, previous)
    out = load(tmp_path / "out")
    assert all(torch.equal(out[name], previous[name]) for name in ("inv_freq", "ids", "mask"))
    assert metrics["step_norm"] == pytest.approx(4.0)


@pytest.mark.usefixtures("small_pieces")
def test_tied_weights_under_one_name_or_both(pair, tmp_path):
    previous = {"embed": random(40, 8), "w": random(8, 8, seed=1)}
    new = moved(previous)
    tied = new["embed"] + 0  # its own memory, as a folder with both names holds it
    pair({**new, "head": tied}, previous)
    wanted = expected(new, previous, 0.3)
    assert_close(load(tmp_path / "out"), {**wanted, "head": wanted["embed"]})


def test_tied_weights_of_which_new_has_the_one_name(pair, tmp_path):
    previous = {"embed": random(40, 8), "w": random(8, 8, seed=1)}
    new = moved(previous)
    pair(new, {**previous, "head": previous["embed"] + 0})
    assert_close(load(tmp_path / "out"), expected(new, previous, 0.3))


def test_names_that_are_missing(refused, tmp_path):
    previous = {"embed": random(40, 8), "w": random(8, 8, seed=1)}
    new = {**previous, "head": random(40, 8, seed=2)}
    assert refused(new, previous) == f"{tmp_path / 'previous'} lacks 1 tensors of {tmp_path / 'new'}: head"


def test_names_that_new_lacks(refused):
    previous = {name: random(3, seed=ord(name)) for name in "abcdef"}
    assert "lacks 5 tensors" in (message := refused({"f": previous["f"]}, previous))
    assert message.endswith("previous: a, b, c")


def test_zero_vectors_are_no_tied_weights(refused):
    zeros = {"a": torch.zeros(8)}
    assert "lacks 1 tensors" in refused({**zeros, "b": torch.zeros(8)}, zeros)


def test_shapes_that_differ(refused):
    assert "w is F32 (4, 3) in " in refused({"w": random(4, 3)}, {"w": random(3, 4)})


def test_a_float_against_an_integer(refused):
    assert "w is F32 (4,) in " in refused({"w": random(4)}, {"w": torch.arange(4)})


def test_integers_that_differ(refused):
    message = refused({"steps": torch.tensor([4])}, {"steps": torch.tensor([3])})
    assert message == "steps is I64 and differs: only floats are extrapolated"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("folder", ["new", "previous"])
def test_weights_that_are_no_numbers(refused, value, folder, tmp_path):
    models = {"new": {"w": random(9, 9), "v": random(3)}, "previous": {"w": random(9, 9), "v": random(3)}}
    models[folder]["w"][8, 3] = value
    assert refused(**models) == f"w in {tmp_path / folder} is not finite everywhere"


def test_large_finite_weights_pass(pair):
    assert pair({"w": torch.full((4,), 1e30)}, {"w": torch.zeros(4)})["step_norm"] == pytest.approx(2e30)


@pytest.mark.parametrize("a", [-0.1, 1.0, float("nan")])
def test_momentum_outside_of_its_range(refused, a):
    assert "momentum must be at least 0 and below 1" in refused({"w": random(3)}, {"w": random(3)}, a=a)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_that_drowns_in_rounding(refused, dtype, tmp_path):
    """Weights that moved by 1e-4 of their size: rounding makes a step many times the true one."""
    previous = {"w": random(300, 300, scale=0.05)}
    new = moved(previous, scale=0.05 * (1e-4 if dtype is torch.bfloat16 else 1e-5))
    message = refused({"w": new["w"].to(dtype)}, {"w": previous["w"].to(dtype)})
    assert "train and save in float32 (`model: {dtype: float32}`)" in message
    measured, rounding = (float(message.split(word)[1].split()[0].strip(",")) for word in ("measures ", "makes "))
    assert measured < 2**0.5 * rounding


@pytest.mark.parametrize(("dtype", "sizes"), [(torch.bfloat16, (1e-4, 1e-3, 1e-2, 1e-1)),
                                              (torch.float16, (1e-5, 1e-4, 1e-3, 1e-2))])  # fmt: skip
def test_the_rule_asks_whether_the_step_is_larger_than_its_error(tmp_path, dtype, sizes):
    """Refused exactly where the extrapolated step of the rounded models is further off than the step is long."""
    verdicts = []
    for at, size in enumerate(sizes):
        previous = {"w": random(400, 400, scale=0.05)}
        new = moved(previous, scale=0.05 * size)
        step = new["w"] - previous["w"]
        rounded = [{"w": value["w"].to(dtype)} for value in (new, previous)]
        error = (rounded[0]["w"].float() - rounded[1]["w"].float() - step).norm()
        folders = [save(tmp_path / f"{name}{at}", part) for name, part in zip("ab", rounded, strict=True)]
        try:
            extrapolate(*folders, tmp_path / f"out{at}", 0.3)
            verdicts.append(True)
            assert_close(load(tmp_path / f"out{at}"), expected(*rounded, 0.3))
            assert load(tmp_path / f"out{at}")["w"].dtype == torch.float32
        except ValueError:
            verdicts.append(False)
        assert verdicts[-1] == bool(step.norm() > error), (size, step.norm(), error)
    assert verdicts == [False, False, True, True]


def test_the_rounding_of_new_alone_drowns_a_step_too(refused):
    previous = {"w": random(300, 300)}
    assert "train and save in float32" in refused({"w": moved(previous, 1e-4)["w"].bfloat16()}, previous)


def test_a_float32_step_from_a_16_bit_base_is_exact(pair, tmp_path):
    previous = {"w": random(50, 50).bfloat16()}
    new = {"w": previous["w"].float() + random(50, 50, seed=1, scale=1e-6)}
    pair(new, previous)
    assert_close(load(tmp_path / "out"), expected(new, previous, 0.3))


def test_equal_16_bit_models_extrapolate_to_themselves(pair, tmp_path):
    model = {"w": random(50, 50).bfloat16()}
    assert pair(model, model)["step_norm"] == 0
    assert torch.equal(load(tmp_path / "out")["w"], model["w"].float())


MEASURE = """
import sys
from pathlib import Path
from trimtab.pipelines.algorithms.extrapolation import extrapolate
def status(key):  # of this process alone, in KiB: ru_maxrss would begin at the peak of the process that started it
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(key))
before = status("VmRSS")
extrapolate(*map(Path, sys.argv[1:]), momentum=0.3)
print((status("VmHWM") - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.slow
def test_memory_is_bounded(tmp_path):
    big = {f"w{i}": torch.full((4096, 2048), 1.0 + i) for i in range(3)}  # 33 MB each
    folders = save(tmp_path / "new", big, 2), save(tmp_path / "previous", {k: v - 1 for k, v in big.items()})
    words = [sys.executable, "-c", MEASURE, *map(str, (*folders, tmp_path / "out"))]
    peak = int(subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    assert peak < 4 * 4096 * 2048  # less than one tensor
