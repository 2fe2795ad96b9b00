"""The JSONL file always has everything; wandb mirrors it and can fail in any way without being noticed."""

import errno
import json
import logging
import os
import socket
import sys
import time

import pytest
import wandb_files
from conftest import SFT_ROWS
from run_steps import run_recipe, write_recipe

from trimtab.pipelines.recording import reach, tracking
from trimtab.pipelines.running import runner

TRAIN = {"max_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 1, "gradient_checkpointing": False}


@pytest.fixture
def stages(model, write):
    data = write("sft.jsonl", SFT_ROWS)
    prompts = write("prompts.jsonl", [{"prompt": row["prompt"]} for row in SFT_ROWS[:2]])
    return {
        "sft": {"model": {"model_name_or_path": model}, "data": data, "train": {**TRAIN, "report_to": "wandb"}},
        "sample": {"model": {"model_name_or_path": "$sft"}, "prompts": prompts, "generate": {"max_new_tokens": 3}},
    }


def losses(step):
    return [row["train/loss"] for row in tracking.read(step.dir / "metrics.jsonl") if "train/loss" in row]


def test_offline_run_per_step(stages, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        steps = run_recipe(tmp_path, stages, wandb={"project": "p"})
    assert not [record for record in caplog.records if "wandb" in record.getMessage()]
    for step in steps.values():
        (folder,) = step.dir.glob("wandb/offline-run-*")
        assert folder.name.endswith(f"{step.name}-{step.fingerprint}")
        (binary,) = folder.glob("*.wandb")
        content = binary.read_bytes()
        for word in (b"test", step.kind.encode(), step.fingerprint.encode()):
            assert word in content
    assert len(losses(steps["sft"])) == 2
    logged = [
        key for row in wandb_files.shown(tmp_path / "runs")[f"sft-{steps['sft'].fingerprint}"].history for key in row
    ]
    assert logged.count("sft/train/loss") == 2
    assert "train/loss" not in logged


@pytest.mark.parametrize("how", ["absent", "init fails", "log fails", "finish fails"])
def test_wandb_never_decides(how, stages, tmp_path, monkeypatch, caplog):
    import wandb

    def broken(*args, **kwargs):
        raise (
            RuntimeError("no network") if how == "finish fails" else OSError(errno.ENOSPC, "the folder's disk is full")
        )

    if how == "absent":
        monkeypatch.setitem(sys.modules, "wandb", None)
    elif how == "init fails":
        monkeypatch.setattr(wandb, "init", broken)
    else:
        from wandb.sdk.wandb_run import Run

        monkeypatch.setattr(Run, how.split()[0], broken)
    with caplog.at_level(logging.WARNING):
        steps = run_recipe(tmp_path, {"sft": stages["sft"]}, wandb={})
    assert steps["sft"].done
    assert len(losses(steps["sft"])) == 2
    assert sum("wandb is off for sft" in record.getMessage() for record in caplog.records) == 1


def test_offline_unless_a_key_or_a_mode_says_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert not tracking.has_key()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert tracking.has_key()
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert tracking.has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://other.example:8080/path")
    assert not tracking.has_key()


def test_secrets_are_redacted():
    found = tracking.redact({"api_key": "s", "hub_token": "s", "url": ["https://u:p@host/x"], "eos_token": "<eos>"})
    assert found == {"api_key": "(redacted)", "hub_token": "(redacted)", "url": ["https://(redacted)@host/x"],
                     "eos_token": "<eos>"}  # fmt: skip


def test_a_line_cut_by_a_crash_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert tracking.read(tmp_path / "metrics.jsonl") == [{"step": 1}]
    assert tracking.read(tmp_path / "none.jsonl") == []


def test_a_run_of_a_sweep_is_grouped_by_recipe_stage_and_point(tmp_path, monkeypatch):
    import wandb

    given = []
    monkeypatch.setattr(wandb, "init", lambda **words: given.append(words))
    stages = {"tiny": {"kind": "world", "sft": 16, "pairs": 16, "test": 4}}
    sweep = {"stages.tiny.prompts": [8, 9], "seed": [1]}
    run_recipe(tmp_path, stages, wandb={}, sweep=sweep)
    assert [(words["group"], words["job_type"], words["name"]) for words in given[:2]] == [
        ("test", "tiny", "prompts=8"),
        ("test", "tiny", "prompts=9"),
    ]
    assert given[0]["config"]["point"] == {"stages.tiny.prompts": 8}
    assert given[0]["id"].startswith("tiny-prompts-8-")


def test_a_recipe_that_goes_on_has_one_run_above_those_of_its_steps(tmp_path):
    """As a server has them after `wandb sync`: the first command is killed in the last step that it makes."""
    world = {"kind": "world", "prompts": 8, "sft": 16, "pairs": 16, "test": 4}
    stages = {"tiny": world, "more": {**world, "seed": 1}, "report": {}}
    path = str(write_recipe(tmp_path, stages))
    assert runner.train(path, [], "tiny") == 0
    wandb_files.shown(tmp_path / "runs")  # when all is written
    (tmp_path / "runs" / "test" / "tiny" / "done.json").unlink()
    (tiny,) = (file for file in wandb_files.files(tmp_path / "runs") if "tiny" in file.name)
    os.truncate(tiny, tiny.stat().st_size - 100)
    time.sleep(1 - time.time() % 1)  # wandb names a folder by the second, which two commands do not share
    assert runner.train(path) == 0
    runs = wandb_files.shown(tmp_path / "runs", killed=1)
    assert sum("tiny" in file.name for file in wandb_files.files(tmp_path / "runs")) == 2
    (parent,) = [run for run in runs.values() if run.job_type == "recipe"]
    assert sorted(run.job_type for run in runs.values()) == ["recipe", "report", "world", "world"]
    assert {run.group for run in runs.values()} == {"test"}
    assert list(parent.config["steps"]) == ["tiny", "more", "report"]
    assert parent.summary["steps_done"] == 3
    assert "test-report" in parent.artifacts
    assert [row["steps.nrows"] for row in parent.history if "steps.nrows" in row] == [1, 3]


def test_a_key_without_a_server_that_answers_costs_seconds_once_and_keeps_offline_files(tmp_path, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        monkeypatch.delenv("WANDB_MODE")
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(reach, "SECONDS", 0.2)
        world = {"kind": "world", "prompts": 8, "sft": 16, "pairs": 16, "test": 4}
        run_recipe(tmp_path, {"tiny": world, "more": {**world, "seed": 1}}, wandb={})
    assert capsys.readouterr().err.count("does not answer: wandb keeps offline files") == 1
    assert sorted(run.job_type for run in wandb_files.shown(tmp_path / "runs").values()) == [
        "recipe",
        "world",
        "world",
    ]
    assert "x" * 40 not in "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*.jsonl"))


def test_a_server_that_answers_is_used(monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setattr(reach, "_answers", lambda server: True)
    assert reach.settle() is None
    assert "WANDB_MODE" not in os.environ
