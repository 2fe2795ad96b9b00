"""Public benchmarks by the evaluation harness: a program of another environment, here one that leaves what it does."""

import json
import os
import sys

import pytest
from run_steps import refused, run_recipe

from trimtab.pipelines.recording import artifacts

HARNESS = """#!{python}
import json, os, sys
words = dict(word.split("=", 1) for word in sys.argv[1:])
if words["--tasks"] == "broken":
    print("one line\\nKeyError: broken is no task")
    sys.exit(3)
folder = os.path.join(words["--output_path"], "model")
os.makedirs(folder)
left = {{"results": {{"sums": {{
            "alias": "sums", "exact_match,strict": 0.25, "exact_match_stderr,strict": 0.1,
            "bits_per_byte,none": 1.5, "bits_per_byte_stderr,none": "N/A"}}}},
        "words": words, "rank": os.environ.get("RANK"), "lm_eval_version": "0.4"}}
json.dump(left, open(os.path.join(folder, "results_2026.json"), "w"))
"""


@pytest.fixture
def harness(tmp_path, monkeypatch):
    """A program that is started with `--include_path` as TRIMTAB_LM_EVAL says."""
    program = tmp_path / "lm_eval"
    program.write_text(HARNESS.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("TRIMTAB_LM_EVAL", f"{program} --include_path=tasks")


def stages(model, **more):
    return {"lm_eval": {"policies": {"start": model}, "tasks": ["sums"], "limit": 7, **more}}


def test_what_the_harness_says_is_the_steps_metrics(harness, model, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    step = run_recipe(tmp_path, stages(model))["lm_eval"]
    assert artifacts.read_done(step.dir)["metrics"] == {
        "start/sums/exact_match strict/mean": 0.25,
        "start/sums/exact_match strict/stderr": 0.1,
        "start/sums/bits_per_byte/mean": 1.5,
    }
    left = json.loads((step.output / "start.json").read_text())
    assert left["rank"] is None  # or it would wait for the other ranks of a launch
    assert left["words"]["--model_args"] == f"pretrained={model},dtype=auto"
    assert (left["words"]["--limit"], left["words"]["--include_path"]) == ("7", "tasks")
    assert sorted(os.listdir(step.output)) == ["start.json"]


def test_a_harness_that_fails_says_why(harness, model, tmp_path, capsys):
    said = refused(tmp_path, stages(model, tasks=["broken"]), capsys)
    assert "stages.lm_eval.policies.start" in said
    assert "ended with exit code 3:" in said
    assert "KeyError: broken is no task" in said


def test_where_there_is_none_the_plan_says_how_to_come_by_it(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRIMTAB_LM_EVAL", "/nowhere/lm_eval")
    said = refused(tmp_path, stages(model), capsys)
    assert "/nowhere/lm_eval is no program here: `pip install lm-eval` into an environment of its own" in said


@pytest.mark.parametrize("task", ["evil.yaml", "tasks/evil", "--trust_remote_code", "a,b", ""])
def test_a_task_is_a_name_and_no_file_whose_code_would_run(task, harness, model, tmp_path, capsys):
    assert "is no name of a task" in refused(tmp_path, stages(model, tasks=[task]), capsys)


def test_a_model_brings_no_settings_along(harness, tmp_path, capsys):
    assert "has a comma in it" in refused(tmp_path, stages("some/model,trust_remote_code=True"), capsys)
