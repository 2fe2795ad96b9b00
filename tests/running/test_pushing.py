"""A finished model goes to the hub under its stage's name, with a card; a hub on the loopback interface takes it."""

import json
import logging
import re
import shutil
import socket

import hub_server
import pytest
import torch
from conftest import ROOT
from run_steps import run_recipe
from safetensors.torch import load_file

from trimtab.pipelines.running import pushing
from trimtab.scripts import push

TOKEN = "hf_" + "aB3" * 12


@pytest.fixture
def hub(monkeypatch):
    with hub_server.Hub() as server:
        for name in ("huggingface_hub.constants.ENDPOINT", "huggingface_hub.hf_api.constants.ENDPOINT"):
            monkeypatch.setattr(name, server.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
        server.shutdown()


@pytest.fixture
def finished(tmp_path, write):
    """The folder of a recipe with a model in it, and that model's step."""
    rows = write("rows.jsonl", [{"prompt": "Say it.", "completion": f"It is {number}."} for number in range(8)])
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = {"model_type": "llama", "num_key_value_heads": 2, **sizes}
    steps = run_recipe(tmp_path, {"scratch": {"corpus": rows, "vocab_size": 300, "config": config}}, name="mine")
    return tmp_path / "runs" / "mine" / "scratch", steps["scratch"]


def test_a_dry_run_shows_what_would_go_where_and_asks_nobody(finished, hub, capsys):
    place, step = finished
    assert push.main([str(place), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("YOU/mine-scratch: ")
    assert "  model.safetensors  " in printed
    assert f"| scratch | scratch | `{step.fingerprint}` |" in printed
    assert not hub.tokens
    assert not hub.repositories


def test_it_is_pushed_under_its_stage_with_its_card_and_no_token_is_shown(finished, hub, capsys, caplog):
    place, step = finished
    with caplog.at_level(logging.DEBUG):
        assert push.main([str(place), "--private"]) == 0
    (files,) = hub.repositories.values()
    assert hub.private == set(hub.repositories) == {"somebody/mine-scratch"}
    assert files["model.safetensors"] == (step.output / "model.safetensors").read_bytes()
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert step.fingerprint in card
    assert "## Recipe" in card
    assert str(place.parents[2]) not in card.split("## Recipe")[0]
    assert f"Bearer {TOKEN}" in hub.tokens
    assert hub.tokens <= {f"Bearer {TOKEN}", "None"}  # some questions need no name
    printed = capsys.readouterr()
    assert printed.out.strip().endswith(f"{hub.url}/somebody/mine-scratch")
    assert TOKEN not in printed.out + printed.err + caplog.text
    assert not (step.output / "README.md").exists()


def test_a_card_lies_beside_a_model_that_a_run_has_made(finished):
    place, step = finished
    card = (place / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert f"| scratch | scratch | `{step.fingerprint}` |" in card
    assert "vocab_size: 300" in card.split("## Recipe")[1]
    assert not (step.output / "README.md").exists()  # where it would be another artifact


def test_weights_are_rounded_on_a_copy(finished, hub, tmp_path):
    place, step = finished
    before = (step.output / "model.safetensors").read_bytes()
    assert push.main([str(place), "--to", "org/small", "--dtype", "bfloat16"]) == 0
    assert (step.output / "model.safetensors").read_bytes() == before
    files = hub.repositories["org/small"]
    (tmp_path / "sent.safetensors").write_bytes(files["model.safetensors"])
    assert {str(value.dtype) for value in load_file(tmp_path / "sent.safetensors").values()} == {"torch.bfloat16"}
    assert json.loads(files["config.json"])["dtype"] == "bfloat16"


def test_an_adapter_goes_alone(finished, hub):
    place, step = finished
    (step.dir / "adapter").mkdir()
    shutil.copy(step.output / "model.safetensors", step.dir / "adapter" / "adapter_model.safetensors")
    assert push.main([str(place), "--to", "org/adapter", "--adapter"]) == 0
    assert set(hub.repositories["org/adapter"]) == {"adapter_model.safetensors", "README.md"}


def test_the_lines_of_the_page_on_releasing_load_and_use_it(finished):
    (block,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "release.md").read_text(), re.DOTALL | re.MULTILINE
    )
    names: dict = {}
    exec(block.replace("runs/mine/dpo/output", str(finished[0] / "output")), names)
    assert names["model"].dtype == torch.bfloat16
    assert names["answer"][0]["generated_text"][-1]["role"] == "assistant"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--adapter"], "keeps no adapter"),
        (["--to", "org/refused/name"], "the hub did not take org/refused/name"),
    ],
)
def test_what_cannot_be_pushed_is_said(finished, hub, words, message, capsys):
    assert push.main([str(finished[0]), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_hub_that_falls_silent_is_given_up(finished, hub, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr(pushing, "SILENCE", 0.2)
        assert push.main([str(finished[0])]) == 2
    assert f"timed out. Asked was {address}" in capsys.readouterr().err


def test_what_is_no_finished_step_is_said(tmp_path, capsys):
    assert push.main([str(tmp_path / "nowhere"), "--dry-run"]) == 2
    assert "is no finished step" in capsys.readouterr().err
