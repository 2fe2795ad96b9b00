"""A training goes on only from a checkpoint that is as it was saved, and ends as an undisturbed one."""

import json
import logging
import shutil
from types import SimpleNamespace

import pytest
from conftest import PAIR_ROWS
from launches import weights
from outputs import metrics_of
from run_steps import refused, run_recipe
from short_trainings import TRAIN

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import runner
from trimtab.pipelines.training import checkpoints, circumstances
from trimtab.pipelines.training.checkpoints import MARK, damage, newest, prune, write_mark

FILES = {"model.safetensors": b"w" * 900, "optimizer.pt": b"o" * 900, "trainer_state.json": b"{}", "sub/x": b"x"}
STATE = b'{"best_model_checkpoint": null}'


def checkpoint(folder, step, mark=True, **files):
    """A folder of files as a trainer writes one."""
    path = folder / f"checkpoint-{step}"
    for name, content in {**FILES, "trainer_state.json": STATE, **files}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    if mark:
        write_mark(path, {})
    return path


def zeroed(path):
    content = bytearray(path.read_bytes())
    quarter = max(1, len(content) // 4)
    middle = len(content) // 2
    content[middle : middle + quarter] = bytes(quarter)
    path.write_bytes(content)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path):
    path.write_bytes(b"")


def removed(path):
    path.unlink()


def longer(path):
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize("change", [zeroed, truncated, emptied, removed, longer])
@pytest.mark.parametrize("name", [*FILES, MARK])
def test_the_one_before_is_taken_where_any_file_has_changed(name, change, tmp_path, caplog):
    good = checkpoint(tmp_path, 9)
    bad = checkpoint(tmp_path, 10)
    change(bad / name)
    if name == MARK and change is longer:  # white space behind JSON
        assert newest(tmp_path) == bad
        return
    with caplog.at_level(logging.WARNING):
        assert newest(tmp_path) == good
    (warning,) = caplog.messages
    assert f"{bad} is passed over: " in warning
    assert name in warning


def test_one_whose_saving_was_interrupted_is_passed_over(tmp_path, caplog):
    assert newest(tmp_path) is None
    assert not caplog.messages
    checkpoint(tmp_path, 10, mark=False)
    assert newest(tmp_path) is None
    assert "saving it was interrupted" in caplog.messages[0]
    assert caplog.messages[1].endswith("can be gone on from: the training begins anew")


def test_more_files_do_no_harm(tmp_path):
    good = checkpoint(tmp_path, 9)
    (good / "notes.txt").write_text("mine")
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-11.bak").write_text("")
    assert newest(tmp_path) == good


@pytest.mark.parametrize(
    "mark", ["", "null", "[]", "{}", '{"files": {}}', '{"files": 1}', '{"model.safetensors": 900}']
)
def test_a_mark_that_says_nothing_of_the_files_marks_nothing(mark, tmp_path, caplog):
    """The last one is that of an older version, which kept sizes only."""
    (checkpoint(tmp_path, 9) / MARK).write_text(mark)
    assert newest(tmp_path) is None
    assert "is passed over" in caplog.messages[0]


def test_one_that_was_saved_without_its_optimizer_is_passed_over(tmp_path):
    path = checkpoint(tmp_path, 9, mark=False)
    (path / "optimizer.pt").unlink()
    write_mark(path, {})
    assert "saved without a file like optim" in damage(path)


def test_the_best_one_that_it_refers_to_is_looked_at_too(tmp_path):
    best = checkpoint(tmp_path, 8)
    state = json.dumps({"best_model_checkpoint": f"elsewhere/{best.name}"}).encode()
    path = checkpoint(tmp_path, 9, **{"trainer_state.json": state})
    assert damage(path) is None
    zeroed(best / "model.safetensors")
    assert damage(path) == "the best one so far is checkpoint-8, and " + damage(best)


def test_pruning_keeps_the_newest_that_are_complete_and_the_best(tmp_path):
    for step in (1, 2, 3, 4):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 5, mark=False)  # of an earlier launch, that was killed
    checkpoint(tmp_path, 9)  # of steps that are run again
    prune(checkpoint(tmp_path, 6), 3, best="elsewhere/checkpoint-1")
    assert {path.name for path in tmp_path.iterdir()} == {f"checkpoint-{step}" for step in (1, 3, 4, 6)}


# ---- trainings


@pytest.fixture(scope="module")
def dpo(model, tmp_path_factory):
    """A finished training of five steps with a checkpoint of each, its recipe and its weights."""
    folder = tmp_path_factory.mktemp("dpo")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIR_ROWS))
    train = {**TRAIN, "max_steps": 5, "save_steps": 1, "save_total_limit": 3}
    block = {"model": {"model_name_or_path": model}, "data": str(folder / "pairs.jsonl"), "train": train}
    return run_recipe(folder, {"dpo": block})["dpo"]


def interrupted(step, folder):
    """A copy of a finished run in which the step is at its checkpoint 4, and all that it needs to go on is there."""
    shutil.copytree(step.dir.parent.parent.parent, folder, dirs_exist_ok=True, symlinks=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(step.dir.parent.parent), str(folder / "runs")))
    (again,) = Recipe.load(str(recipe)).steps
    shutil.rmtree(again.output)
    (again.dir / "done.json").unlink()
    shutil.rmtree(again.dir / "checkpoints" / "checkpoint-5")
    return again


def resumed_from(step, folder):
    """The step that the training goes on from, when the same command is given again."""
    assert runner.train(str(folder / "recipe.yaml")) == 0
    return metrics_of(step)["train/resumed_from"]


def names(step):
    files = (step.dir / "checkpoints" / "checkpoint-4").rglob("*")
    return sorted(str(path.relative_to(step.dir / "checkpoints" / "checkpoint-4")) for path in files)


def test_pruning_is_ours_and_leaves_as_many_as_trl_would(dpo):
    assert {path.name for path in (dpo.dir / "checkpoints").glob("*-*")} == {f"checkpoint-{n}" for n in (3, 4, 5)}


def test_every_file_of_a_training_counts(dpo, tmp_path):
    step = interrupted(dpo, tmp_path)
    folder = step.dir / "checkpoints" / "checkpoint-4"
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "config.json"} <= {*names(step)}
    assert damage(folder) is None
    for name in names(step):
        content = (folder / name).read_bytes()
        for change in (zeroed, truncated, removed):
            change(folder / name)
            assert name in damage(folder)
            (folder / name).write_bytes(content)


def test_a_damaged_one_costs_a_step_and_changes_nothing(dpo, tmp_path, caplog):
    step = interrupted(dpo, tmp_path)
    zeroed(step.dir / "checkpoints" / "checkpoint-4" / "model.safetensors")
    assert resumed_from(step, tmp_path) == 3
    assert weights(step) == weights(dpo)
    assert "model.safetensors is damaged: its content is not what was saved" in caplog.text
    assert damage(step.dir / "checkpoints" / "checkpoint-4") is None  # saved again, over what was there


def test_where_none_is_whole_the_training_begins_anew(dpo, tmp_path, caplog):
    step = interrupted(dpo, tmp_path)
    for path in (step.dir / "checkpoints").glob("*-*"):
        zeroed(path / "optimizer.pt")
    assert resumed_from(step, tmp_path) == 0
    assert weights(step) == weights(dpo)
    assert "the training begins anew" in caplog.text


def test_a_kill_while_saving_leaves_the_one_before(dpo, tmp_path, monkeypatch):
    """Also where only two may be left, and the other one is damaged."""
    step = interrupted(dpo, tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("save_total_limit: 3", "save_total_limit: 2"))
    zeroed(step.dir / "checkpoints" / "checkpoint-4" / "model.safetensors")

    def kill(*args):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_mark", kill)
        assert runner.train(str(recipe)) == 1
    assert newest(step.dir / "checkpoints").name == "checkpoint-3"
    assert resumed_from(step, tmp_path) == 3
    assert weights(step) == weights(dpo)


@pytest.mark.parametrize("key", ["save_only_model", "ignore_data_skip", "save_on_each_node"])
def test_what_cannot_be_gone_on_from_exactly_is_refused(key, model, write, tmp_path, capsys):
    block = {"model": {"model_name_or_path": model}, "data": write("p.jsonl", PAIR_ROWS), "train": {key: True}}
    assert f"stages.dpo.train.{key}: " in refused(tmp_path, {"dpo": block}, capsys)


def test_other_circumstances_are_refused_or_told(dpo, tmp_path, capsys, caplog):
    step = interrupted(dpo, tmp_path)
    mark = step.dir / "checkpoints" / "checkpoint-4" / MARK
    facts = json.loads(mark.read_text())
    mark.write_text(json.dumps({**facts, "circumstances": {**facts["circumstances"], "engine": "FSDP"}}))
    assert runner.train(str(tmp_path / "recipe.yaml")) == 2
    error = capsys.readouterr().err
    assert f"stages.dpo: {mark.parent} was saved under FSDP and this launch is under DDP, which does not read" in error
    versions = {**facts["circumstances"]["versions"], "torch": "1.0"}
    mark.write_text(json.dumps({**facts, "circumstances": {**facts["circumstances"], "versions": versions}}))
    assert resumed_from(step, tmp_path) == 4
    assert weights(step) == weights(dpo)
    assert "was saved under other circumstances (torch 1.0 -> " in caplog.text


def test_only_under_ddp_other_ranks_go_on(tmp_path, monkeypatch, caplog):
    today = circumstances.here()
    step = SimpleNamespace(path=("stages", "dpo"))
    circumstances.require_same({**today, "processes": 2}, tmp_path, step)
    assert "other circumstances (processes 2 -> 1)" in caplog.text
    monkeypatch.setattr(circumstances, "sharding", lambda: "DEEPSPEED")
    with pytest.raises(RecipeError, match="saved by 2 processes and this launch has 1, under DEEPSPEED, which splits"):
        circumstances.require_same({**today, "processes": 2, "engine": "DEEPSPEED"}, tmp_path, step)


def test_weights_that_are_no_numbers_are_never_marked(dpo, tmp_path, capsys):
    """At a step that logs nothing."""
    recipe = tmp_path / "recipe.yaml"
    source = dpo.dir.parent.parent.parent / "recipe.yaml"
    text = source.read_text().replace(str(dpo.dir.parent.parent), str(tmp_path / "runs"))
    recipe.write_text(
        text.replace("learning_rate: 0.001", "learning_rate: 1.0e+30").replace("logging_steps: 1", "logging_steps: 9")
    )
    assert runner.train(str(recipe)) == 1
    error = capsys.readouterr().err
    assert "a weight is not a number after step" in error
    assert "Lower train.learning_rate (1e+30)" in error
    (step,) = Recipe.load(str(recipe)).steps
    assert not step.done
    for path in (step.dir / "checkpoints").glob(f"*/{MARK}"):
        assert damage(path.parent) is None
        assert path.parent.name != "checkpoint-5"
