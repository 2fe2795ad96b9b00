"""Momentum: its coefficients in closed form, extrapolated models against float64, and what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from run_steps import run_recipe, write_recipe
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from trimtab.pipelines.algorithms import adapters, momentum
from trimtab.pipelines.algorithms import weights as stored
from trimtab.scripts import train

SHARDED, REST = "model-{:05}-of-{:05}.safetensors", {"config.json", "generation_config.json", "tokenizer.json"}


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def save(folder, tensors, shards=1):
    """A model folder with a config, in one file or in shards with an index."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"dtype": "bfloat16", "text_config": {"torch_dtype": "bfloat16"}}))
    names = list(tensors)
    if shards == 1:
        save_file(tensors, folder / stored.SINGLE, metadata={"format": "pt"})
        return folder
    weights = {}
    for shard in range(shards):
        file = SHARDED.format(shard + 1, shards)
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weights |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1, "total_parameters": 7}, "weight_map": weights}
    (folder / stored.INDEX).write_text(json.dumps(index))
    return folder


def load(folder):
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def state(seed=0, scale=1.0):
    """Tensors of all the shapes that models have: matrices, vectors, a scalar, a stack of experts, nothing at all."""
    shapes = {"embed": (300, 17), "norm": (17,), "scale": (), "experts": (3, 5, 7), "none": (0, 4), "wide": (2, 5000)}
    return {name: random(*shape, seed=seed + i, scale=scale) for i, (name, shape) in enumerate(shapes.items())}


def moved(tensors, scale=1e-3, seed=50):
    return {name: value + random(*value.shape, seed=seed + i, scale=scale)
            for i, (name, value) in enumerate(tensors.items())}  # fmt: skip


def expected(new, previous, a):
    return {name: new[name].double() + a * (new[name].double() - previous[name].double()) for name in new}


def assert_close(found, wanted, tolerance=1e-6):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        torch.testing.assert_close(found[name].double(), value.double(), rtol=tolerance, atol=tolerance)


@pytest.fixture
def small_pieces(monkeypatch):
    """Tensors of a few thousand numbers come in many pieces too."""
    monkeypatch.setattr(stored, "PIECE", 64)


@pytest.fixture
def pair(tmp_path):
    """Writes `previous` and `new`, and returns a function that extrapolates them."""

    def pair(new, previous, a=0.3, shards=(1, 1)):
        folders = (save(tmp_path / "new", new, shards[0]), save(tmp_path / "previous", previous, shards[1]))
        return stored.extrapolate(*folders, tmp_path / "out", a)

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


@pytest.mark.parametrize(
    ("a", "ratios"),
    [
        (0.0, {1: 1.0, 7: 1.0}),
        (0.3, {1: 1.00, 2: 1.15, 3: 1.23, 5: 1.31, 10: 1.37}),
        (0.6, {1: 1.00, 2: 1.30, 3: 1.52, 5: 1.81, 10: 2.13}),
        (0.9, {1: 1.00, 2: 1.45, 3: 1.87, 5: 2.63, 10: 4.14}),
    ],
)
def test_the_control_of_a_number_of_rounds(a, ratios):
    assert {rounds: round(momentum.ratio(a, rounds), 2) for rounds in ratios} == ratios


@pytest.mark.parametrize("a", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("rounds", [1, 3, 8])
def test_coefficients_are_those_of_the_paper(a, rounds):
    t = rounds - 1
    assert momentum.coefficients(a, rounds) == pytest.approx([(1 - a ** (t + 1 - i)) / (1 - a) for i in range(t + 1)])
    closed = (t + 1) / (1 - a) - a / (1 - a) ** 2 + a ** (t + 2) / (1 - a) ** 2
    assert momentum.exponent(a, rounds) == pytest.approx(closed)


def test_coefficients_at_one_are_the_limit():
    assert momentum.coefficients(1.0, 4) == [4, 3, 2, 1]
    assert momentum.coefficients(1 - 1e-9, 4) == pytest.approx([4, 3, 2, 1])


def test_coefficients_weigh_the_rewards_of_tabular_rounds():
    """Theorem 4.1 by iterating it: a reward per answer and round, exact rounds, the policy normalised at the end."""
    a, b, rounds = 0.3, 0.5, 4
    rewards = random(rounds, 6, seed=3).double()
    start = hat = theta = random(6, seed=4).double()
    for reward in rewards:
        last, hat = hat, theta + reward / b
        theta = hat + a * (hat - last)
    weights = torch.tensor(momentum.coefficients(a, rounds), dtype=torch.float64)
    torch.testing.assert_close(hat, start + weights @ rewards / b, rtol=1e-12, atol=1e-12)


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
    indices = [json.loads((folder / stored.INDEX).read_text()) for folder in (out, new)]
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
    stored.extrapolate(new, save(tmp_path / "previous", previous), tmp_path / "out", 0.3)
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {*kept, "config.json", stored.SINGLE}


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
    weights = {"a": torch.zeros(8)}
    assert "lacks 1 tensors" in refused({**weights, "b": torch.zeros(8)}, weights)


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


def test_an_adapter_is_no_model(tmp_path):
    (tmp_path / "adapter").mkdir()
    save_file({"a": random(3)}, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="adapter is no complete model"):
        stored.Weights(tmp_path / "adapter")


def test_files_that_are_cut_off_or_missing(tmp_path):
    folder = save(tmp_path / "model", state(), shards=2)
    path = folder / SHARDED.format(1, 2)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="is broken"):
        stored.Weights(folder)
    path.unlink()
    with pytest.raises(ValueError, match="has no shard"):
        stored.Weights(folder)


def test_an_index_that_leads_outside_of_the_folder(tmp_path):
    folder = save(tmp_path / "model", {"w": random(3)})
    (folder / stored.SINGLE).rename(tmp_path / "elsewhere.safetensors")
    (folder / stored.INDEX).write_text(json.dumps({"weight_map": {"w": "../elsewhere.safetensors"}}))
    with pytest.raises(ValueError, match="has no shard"):
        stored.Weights(folder)


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
            stored.extrapolate(*folders, tmp_path / f"out{at}", 0.3)
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
    weights = {"w": random(50, 50).bfloat16()}
    assert pair(weights, weights)["step_norm"] == 0
    assert torch.equal(load(tmp_path / "out")["w"], weights["w"].float())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_is_bounded(tmp_path):
    from benchmarks.extrapolation import MEASURE

    big = {f"w{i}": torch.full((4096, 2048), 1.0 + i) for i in range(3)}  # 33 MB each
    folders = save(tmp_path / "new", big, 2), save(tmp_path / "previous", {k: v - 1 for k, v in big.items()})
    words = [sys.executable, "-c", MEASURE, *map(str, (*folders, tmp_path / "out"))]
    peak = int(subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    assert peak < 4 * 4096 * 2048  # less than one tensor


def another(model, folder, scale=1e-3):
    """The model with every weight moved."""
    shutil.copytree(model, folder)
    save_file(moved(load(folder), scale), folder / stored.SINGLE, metadata={"format": "pt"})
    return folder


def test_the_stage(model, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    new = another(model, tmp_path / "new")
    step = run_recipe(tmp_path, {"extrapolate": {"new": str(new), "previous": model, "momentum": 0.5}})["extrapolate"]
    wanted = expected(load(new), load(Path(model)), 0.5)
    assert_close(load(step.output), wanted)
    metrics = json.loads((step.dir / "done.json").read_text())["metrics"]
    assert metrics["tensors"] == len(wanted)
    assert metrics["relative_step"] == pytest.approx(metrics["step_norm"] / metrics["weight_norm"])
    policy = AutoModelForCausalLM.from_pretrained(step.output)
    assert policy.dtype == torch.float32
    assert policy.state_dict().keys() >= wanted.keys()
    torch.testing.assert_close(policy.get_input_embeddings().weight.double(), wanted["model.embed_tokens.weight"])
    assert (
        AutoTokenizer.from_pretrained(step.output).chat_template == AutoTokenizer.from_pretrained(model).chat_template
    )


def test_the_stage_extrapolates_what_a_step_above_makes(model, tmp_path):
    new = another(model, tmp_path / "new")
    stages = {
        "first": {"kind": "extrapolate", "new": str(new), "previous": model, "momentum": 0},
        "second": {"kind": "extrapolate", "new": "$first", "previous": model},
    }
    steps = run_recipe(tmp_path, stages)
    for name, tensor in load(new).items():
        assert torch.equal(load(steps["first"].output)[name].view(torch.int32), tensor.view(torch.int32)), name
    assert_close(load(steps["second"].output), expected(load(new), load(Path(model)), 0.3))


@pytest.fixture
def message(tmp_path, capsys):
    """Runs the stage, expects exit code 2 and one line, and returns it."""

    def message(**options):
        assert train.main([str(write_recipe(tmp_path, {"extrapolate": options}, wandb=False))]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1
        return error

    return message


def test_the_stages_errors(message, model, tmp_path):
    new = str(another(model, tmp_path / "new"))
    assert "stages.extrapolate.momentum: expected a number of at least 0 and below 1, got 1.0" in message(
        new=new, previous=model, momentum=1
    )
    assert "stages.extrapolate.new: no such folder: /nowhere" in message(new="/nowhere", previous=model)
    (tmp_path / "empty").mkdir()
    empty = str(tmp_path / "empty")
    assert f"stages.extrapolate.previous: {empty} is no complete model" in message(new=new, previous=empty)
    other = save(tmp_path / "other", {"w": random(3)})
    assert "stages.extrapolate.previous: " in (error := message(new=new, previous=str(other)))
    assert f"lacks 1 tensors of {other}: w" in error
    assert "stages.extrapolate.previous: required key is missing" in message(new=new)
    assert not (tmp_path / "runs").exists()


def test_the_stage_refuses_a_step_that_is_lost_in_rounding(message, model, tmp_path):
    from transformers import AutoModelForCausalLM

    folders = [another(model, tmp_path / name, scale) for name, scale in (("a", 0.0), ("b", 1e-6))]
    for folder in folders:
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    error = message(new=str(folders[1]), previous=str(folders[0]))
    assert "stages.extrapolate: the step from" in error
    assert "train and save in float32" in error


@pytest.fixture(scope="module")
def rounds(model, tmp_path_factory):
    """Three rounds of momentum with LoRA: the adapters, and hat_3 and theta_3 by merging and extrapolating."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("rounds")
    theta = hat = Path(model)
    found = {"base": theta, "adapters": []}
    for at in range(3):
        torch.manual_seed(at)
        config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], init_lora_weights=False,
                            rank_pattern={"down_proj": 2}, alpha_pattern={r"layers\.1\.mlp\.down_proj": 5},
                            use_rslora=at == 1, task_type="CAUSAL_LM")  # fmt: skip
        adapter = folder / f"adapter{at}"
        get_peft_model(AutoModelForCausalLM.from_pretrained(theta, dtype=torch.float32), config).save_pretrained(
            adapter
        )
        start = AutoModelForCausalLM.from_pretrained(theta, dtype=torch.float32)
        previous, hat = hat, folder / f"hat{at}"
        PeftModel.from_pretrained(start, adapter).merge_and_unload().save_pretrained(hat)
        theta = folder / f"theta{at}"
        stored.extrapolate(hat, previous, theta, 0.3)
        found["adapters"].append(adapter)
    return {**found, "hat": hat, "previous": previous, "theta": theta}


def test_a_merged_lora_against_float64(rounds):
    new, previous = load(rounds["hat"]), load(rounds["previous"])
    assert_close(load(rounds["theta"]), expected(new, previous, 0.3))


@pytest.mark.usefixtures("small_pieces")
def test_combining_adapters_is_iterating_merged_models(rounds, tmp_path):
    from transformers import AutoModelForCausalLM

    weights = {"hat": momentum.coefficients(0.3, 3), "theta": momentum.coefficients(0.3, 4)[:3]}
    for name, numbers in weights.items():
        adapters.combine(rounds["base"], rounds["adapters"], numbers, tmp_path / name)
        assert_close(load(tmp_path / name), load(rounds[name]))
    AutoModelForCausalLM.from_pretrained(tmp_path / "theta")


def test_adapters_that_cannot_be_combined(rounds, tmp_path):
    def refused(**changes):
        shutil.rmtree(tmp_path / "adapter", ignore_errors=True)
        shutil.copytree(rounds["adapters"][0], tmp_path / "adapter")
        path = tmp_path / "adapter" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        with pytest.raises(ValueError, match="adapter") as caught:
            adapters.combine(rounds["base"], [tmp_path / "adapter"], [1.0], tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    for changes in ({"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"fan_in_fan_out": True},
                    {"init_lora_weights": "pissa"}, {"trainable_token_indices": [1]}):  # fmt: skip
        assert f"is no plain LoRA: {next(iter(changes))}=" in refused(**changes)
    assert "is no LoRA adapter but IA3" in refused(peft_type="IA3")
    with pytest.raises(ValueError, match="3 adapters have 1 weights"):
        adapters.combine(rounds["base"], rounds["adapters"], [1.0], tmp_path / "out")


def test_an_adapter_of_another_model(rounds, tmp_path):
    other = save(tmp_path / "other", {"w": random(3)})
    with pytest.raises(ValueError, match=r"which .*other lacks"):
        adapters.combine(other, rounds["adapters"], [1.0] * 3, tmp_path / "out")
    adapter = tmp_path / "adapter"
    shutil.copytree(rounds["adapters"][0], adapter)
    save_file({"base_model.model.model.embed_tokens.weight": random(3, 3)}, adapter / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"embed_tokens\.weight is no LoRA factor of a linear layer"):
        adapters.combine(rounds["base"], [adapter], [1.0], tmp_path / "out")
