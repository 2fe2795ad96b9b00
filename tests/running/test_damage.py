"""A damaged artifact is refused before anything runs, made again on request, and never used."""

import json
import os
import pickle
import re
import shutil

import pytest
from conftest import SFT_ROWS
from run_steps import run_recipe, write_recipe

from trimtab.pipelines.planning import finished
from trimtab.pipelines.planning.errors import RecipeError, RecipeErrors
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.running import grouping, runner
from trimtab.pipelines.running import launch as launching
from trimtab.scripts import run, train


@pytest.fixture(scope="module")
def finished_runs(tmp_path_factory):
    """The stages of a recipe, and the run directories that it has left."""
    folder = tmp_path_factory.mktemp("finished")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in SFT_ROWS))
    mixed = {"kind": "mix", "synthetic": [str(rows)], "real": str(rows), "real_fraction": 0.5}
    stages = {"first": mixed, "second": {**mixed, "real": "$first"}, "report": {}}
    run_recipe(folder, stages)
    return stages, folder / "runs"


@pytest.fixture
def chain(finished_runs, tmp_path):
    """A copy of it, as the recipe's path and its steps by name."""
    stages, runs = finished_runs
    shutil.copytree(runs, tmp_path / "runs", symlinks=True)
    path = str(write_recipe(tmp_path, stages, wandb=False))
    return path, {step.name: step for step in Recipe.load(path).steps}


def rows_of(step):
    return step.output / "train.parquet"


def flip(path):
    """Other bits, with the size and the times of before."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_damaged_steps_are_refused_together_and_named_in_the_plan(chain, capsys):
    path, steps = chain
    os.truncate(rows_of(steps["first"]), 512)
    shutil.rmtree(steps["second"].output)
    size = artifacts.read_done(steps["first"].dir)["files"]["train.parquet"]["bytes"]
    for main in (run.main, train.main):
        assert main([path]) == 2
        error = capsys.readouterr().err
        cut = f"stages.first: first is damaged: output/train.parquet has 512 bytes, {size} were written. --rebuild"
        assert f"recipe.yaml:5: {cut}" in error
        assert "stages.second: second is damaged: output is missing. --rebuild makes it again" in error
    assert run.main([path, "--plan"]) == 0
    plan = capsys.readouterr().out
    assert f"    output/train.parquet has 512 bytes, {size} were written\n" in plan
    assert "3 steps, 1 done, 2 damaged, 0 pending" in plan
    assert re.search(r"^first, second by itself: .* --stage STEP --rebuild$", plan, re.MULTILINE)


def test_only_what_is_needed_has_to_be_whole(chain, capsys):
    path, steps = chain
    shutil.rmtree(steps["first"].output)
    assert train.main([path, "--stage", "report"]) == 0
    assert train.main([path, "--stage", "second"]) == 0
    (steps["second"].dir / "done.json").unlink()
    assert train.main([path, "--stage", "second"]) == 2
    assert "first is damaged: output is missing" in capsys.readouterr().err
    assert train.main([path, "--stage", "second", "--rebuild"]) == 2  # which is not to make the first again
    assert train.main([path, "--rebuild"]) == 0


@pytest.mark.parametrize("stage", ["second", "report"])
def test_content_is_compared_before_it_is_used(chain, stage, capsys):
    """By train.py, and by run.py before any launch; the plan that follows knows it too."""
    path, steps = chain
    flip(rows_of(steps["first"]))
    (steps[stage].dir / "done.json").unlink()
    for main in (train.main, run.main):
        assert main([path]) == 2
        line = "its input first is damaged: output/train.parquet has other content than was written. --rebuild makes"
        told = capsys.readouterr()
        assert f"stages.{stage}: {line}" in told.err
        assert "[" not in told.out  # before the heading of any step
    assert not steps[stage].done


def test_each_process_compares_before_its_step(chain, capsys):
    """What is damaged after the launcher's look, and by a step that was there before."""
    path, steps = chain
    recipe = Recipe.load(path)
    (steps["second"].dir / "done.json").unlink()
    flip(rows_of(steps["first"]))
    with pytest.raises(Exception, match="its input first is damaged"):
        runner.run(recipe, recipe.steps[1], check=False, timeout=grouping.patience(recipe.steps[1]))
    assert not (steps["second"].dir / "output.partial").exists()


def test_a_file_that_the_step_has_not_written_is_not_read_along(chain, capsys):
    path, steps = chain
    shutil.copy(rows_of(steps["first"]), steps["first"].output / "more.parquet")
    (steps["second"].dir / "done.json").unlink()
    assert train.main([path, "--stage", "second"]) == 2
    assert "output/more.parquet was not written by the step" in capsys.readouterr().err


def test_an_artifact_of_another_recipe_is_compared_too(chain, tmp_path, capsys):
    _, steps = chain
    mixed = {"kind": "mix", "synthetic": [str(rows_of(steps["first"]))], "real_fraction": 0}
    (tmp_path / "other").mkdir()
    path = str(write_recipe(tmp_path / "other", {"third": mixed}, wandb=False))
    assert train.main([path]) == 0
    shutil.rmtree(tmp_path / "other" / "runs")
    (steps["first"].dir / "metrics.jsonl").write_text("{}")
    assert train.main([path]) == 2
    error = capsys.readouterr().err
    assert f"its input {steps['first'].dir} is damaged: {steps['first'].dir.name}/metrics.jsonl has 2 bytes" in error
    assert f"restore it, or delete {steps['first'].dir} to make the step again" in error


def test_rebuilding_replaces_what_is_damaged_when_the_new_is_whole(chain, monkeypatch, capsys):
    path, steps = chain
    first = steps["first"]
    hashes = artifacts.read_done(first.dir)["files"]
    os.truncate(rows_of(first), 512)
    with monkeypatch.context() as broken:
        broken.setattr(artifacts.manifests, "write_down", lambda *_: 1 / 0)
        assert train.main([path, "--rebuild"]) == 1
    assert rows_of(first).stat().st_size == 512
    assert first.damage
    assert train.main([path, "--rebuild"]) == 0
    assert artifacts.read_done(first.dir)["files"] == hashes
    assert not first.damage
    assert "was made again, with other bits" not in capsys.readouterr().err


@pytest.mark.parametrize("place", ["done.json", "output"])
@pytest.mark.parametrize("left", ["file", "folder", "link"])
def test_rebuilding_takes_the_place_of_whatever_is_there(chain, place, left):
    path, steps = chain
    there = steps["first"].dir / place
    shutil.rmtree(there) if there.is_dir() else there.unlink()
    if left == "file":
        there.write_text("x")
    elif left == "folder":
        there.mkdir()
        (there / "x").write_text("x")
    else:
        there.symlink_to("nowhere")
    assert steps["first"].damage
    assert train.main([path, "--rebuild", "--stage", "first"]) == 0
    assert steps["first"].done


def test_other_bits_after_rebuilding_are_told_for_the_steps_below(chain, monkeypatch, capsys, caplog):
    path, steps = chain
    record = artifacts.read_done(steps["first"].dir)
    record["files"]["train.parquet"] = {"sha256": "0" * 64, "bytes": 1}  # as if it had been made on another machine
    (steps["first"].dir / "done.json").write_text(json.dumps(record))
    record = artifacts.read_done(steps["second"].dir)
    record["made_from"] = {"first": finished.written(steps["first"].dir).digest}
    (steps["second"].dir / "done.json").write_text(json.dumps(record))
    assert train.main([path, "--rebuild"]) == 0
    assert f"{steps['first'].dir.name} was made again, with other bits in train.parquet" in caplog.text
    assert "note: second was made from another first than is there now" in (told := capsys.readouterr().err)
    assert f"delete {steps['second'].dir} to make it again" in told
    assert run.main([path, "--plan"]) == 0
    assert "note: second was made from another first" in capsys.readouterr().err


def test_the_launcher_hands_rebuild_on_to_what_is_damaged_alone(chain, tmp_path, monkeypatch):
    path, steps = chain
    whole = tmp_path / "whole"
    shutil.move(steps["first"].output, whole)
    (steps["second"].dir / "done.json").unlink()
    launched = []

    def launch(command, recipe, _):
        words = command[command.index(recipe.path) + 1 :]
        launched.append(words)
        step = steps[words[1]]
        shutil.copytree(whole, artifacts.fresh(step.dir), dirs_exist_ok=True)
        artifacts.publish(step.dir, {"fingerprint": step.fingerprint, "metrics": {}})
        return 0

    monkeypatch.setattr(launching, "launch", launch)
    assert run.main([path, "--rebuild"]) == 0
    assert launched == [["--stage", "first", "--rebuild"], ["--stage", "second"]]


def test_several_mistakes_reach_the_other_ranks():
    """By pickle, as accelerate's broadcast does it."""
    errors = RecipeErrors([RecipeError("one", ("stages", "a")), RecipeError("two", ("stages", "b"))])
    assert str(pickle.loads(pickle.dumps(errors))) == str(errors) == "stages.a: one\nstages.b: two"


def test_a_step_that_was_killed_before_its_record_is_whole_when_it_was_made_again(model, prompts, tmp_path):
    sample = {"model": {"model_name_or_path": model}, "prompts": prompts, "generate": {"max_new_tokens": 2}}
    stages = {"sample": sample}
    step = run_recipe(tmp_path, stages)["sample"]
    logged = (step.dir / "metrics.jsonl").read_text().count("\n")
    assert logged
    (step.dir / "done.json").unlink()
    score = {"completions": "$sample", "rewards": {"brief": {"kind": "length", "target": 1}}}
    assert run_recipe(tmp_path, {**stages, "score": score})["score"].done
    assert (step.dir / "metrics.jsonl").read_text().count("\n") == logged
