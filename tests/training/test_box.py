"""The largest weights in units of the box that weight decay keeps them in, and who is told of those outside."""

import json
import logging

from conftest import SFT_ROWS
from run_steps import run_recipe
from safetensors.torch import load_file
from short_trainings import write_rows

from trimtab.pipelines.reporting import plots, records
from trimtab.pipelines.reporting.page import render


def test_each_layers_largest_weight_is_logged_drawn_and_warned_of(model, tmp_path, caplog, monkeypatch):
    start = load_file(f"{model}/model.safetensors")
    of_layer = [value.abs().max() for name, value in start.items() if "layers.1." in name and value.dim() > 1]
    outside = 1.5 / max(of_layer).item()  # the wall is at two thirds of layer 1's largest weight

    def stage(decay, **more):
        train = {"max_steps": 3, "learning_rate": 1e-6, "weight_decay": decay, "logging_steps": 1,
                 "per_device_train_batch_size": 4, "gradient_checkpointing": False}  # fmt: skip
        return {"kind": "sft", "model": {"model_name_or_path": model}, "train": train,
                "data": write_rows(tmp_path / "rows.jsonl", SFT_ROWS), **more}  # fmt: skip

    with caplog.at_level(logging.WARNING):
        steps = run_recipe(tmp_path, {
            "lion": stage(outside, optimizer={"class": "pytorch_optimizer.Lion"}),
            "coupled": stage(outside, optimizer={"class": "torch.optim.Adam"}),
            "plain": stage(0.0),
        })  # fmt: skip
    (warning,) = [record.message for record in caplog.records if "keeps weights within" in record.message]
    assert f"train.weight_decay ({outside:g}) keeps weights within {1 / outside:g}" in warning
    assert "layer_1" in warning
    rows = [json.loads(line) for line in (steps["lion"].dir / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in rows if "box/layer_1" in row]
    assert [row["step"] for row in logged] == [1, 2, 3]
    assert abs(logged[0]["box/layer_1"] - 1.5) < 1e-2
    largest = (start["model.embed_tokens.weight"].abs().max() * outside).item()
    assert abs(logged[0]["box/embed_tokens"] - largest) < 1e-2
    for name in ("coupled", "plain"):
        assert "box/" not in (steps[name].dir / "metrics.jsonl").read_text()
    html = render([records.read(steps[name].output) for name in ("lion", "plain")], 0, "test")
    assert html.count("Largest weights (1 is the wall") == 1


def test_many_layers_have_one_panel_without_a_legend():
    series = {f"box/layer_{number}": [(step, step / (number + 1)) for step in range(3)] for number in range(30)}
    drawn = plots.panel("x", series, list(series))
    assert "layer_7" not in drawn
    assert "layer_7" in plots.panel("x", dict(list(series.items())[:8]), list(series)[:8])
