"""The JSONL file always has everything; wandb mirrors it and can fail in any way without being noticed."""

import errno
import json
import logging
import sys

import pytest
from conftest import SFT_ROWS
from run_steps import run_recipe

from trimtab.pipelines.recording import tracking

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
    assert not tracking._has_key()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert tracking._has_key()
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert tracking._has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://other.example:8080/path")
    assert not tracking._has_key()


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
    assert [(words["group"], words["job_type"], words["name"]) for words in given] == [
        ("test", "tiny", "prompts=8"),
        ("test", "tiny", "prompts=9"),
    ]
    assert given[0]["config"]["point"] == {"stages.tiny.prompts": 8}
    assert given[0]["id"].startswith("tiny-prompts-8-")
