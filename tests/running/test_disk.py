"""What the disk refuses is one sentence with exit code 1, and the same command goes on when that is mended."""

import errno
import os
import re
import shutil

import pytest
from conftest import SFT_ROWS
from run_steps import write_recipe
from short_trainings import TRAIN

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import disk, runner
from trimtab.pipelines.stages.scratch import Scratch


def wrapped(error):
    try:
        try:
            raise error
        except OSError:
            raise RuntimeError("a library's") from None
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize("number", disk.REFUSALS)
def test_each_refusal_is_told_of_a_path_in_the_run(number, tmp_path):
    error = OSError(number, os.strerror(number), str(tmp_path / "run" / "metrics.jsonl"))
    for raised in (error, wrapped(error)):
        told = disk.refusal(raised, tmp_path / "run")
        assert told.startswith(f"{disk.REFUSALS[number]}: {tmp_path}/run/metrics.jsonl was not written; ")
        assert told.endswith("MB are free there. " + disk.GOES_ON)


@pytest.mark.parametrize("number", disk.ABOUT_A_PATH)
def test_a_path_elsewhere_is_not_the_runs(number, tmp_path):
    assert disk.refusal(OSError(number, "no", "/etc/data.jsonl"), tmp_path) is None


@pytest.mark.parametrize(
    "words",
    [
        "basic_ios::clear: iostream error",
        "I/O error: No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/3",
    ],
)
def test_libraries_say_in_words_that_the_disk_is_full(words, tmp_path):
    assert disk.refusal(RuntimeError(words), tmp_path).startswith(
        f"the disk is full: no more can be written in {tmp_path}"
    )


@pytest.mark.parametrize("error", [ValueError("no"), OSError(errno.ENOENT, "no such file"), OSError("no number")])
def test_other_errors_are_not_of_the_disk(error, tmp_path):
    assert disk.refusal(error, tmp_path) is None


@pytest.fixture
def recipe(write, tmp_path):
    rows = write("rows.jsonl", [{"prompt": "a", "completion": "b"}])
    config = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return str(write_recipe(tmp_path, {"scratch": {"corpus": rows, "vocab_size": 300, "config": config}}, wandb=False))


def test_a_full_disk_ends_a_step_with_a_sentence_and_the_same_command_goes_on(recipe, monkeypatch, capfd):
    with monkeypatch.context() as full:
        full.setattr(Scratch, "run", lambda self, step: os.write(os.open("/dev/full", os.O_WRONLY), b"a"))
        assert runner.train(recipe) == 1
    told = capfd.readouterr().err
    assert "recipe.yaml:5: stages.scratch: the disk is full: no more can be written in " in told
    assert "Traceback" not in told
    assert runner.train(recipe) == 0
    assert Recipe.load(recipe).steps[0].done


def test_a_run_directory_that_cannot_be_is_a_sentence(recipe, tmp_path, monkeypatch, capfd):
    def refuse(path, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(type(tmp_path), "mkdir", refuse)
    assert runner.train(recipe) == 1
    assert capfd.readouterr().err.startswith(f"error: the disk is read-only: {tmp_path}/runs/test was not written; ")


@pytest.fixture
def nearly_full(monkeypatch):
    """Leaves so many bytes free on every disk."""

    def fill(free):
        usage = shutil.disk_usage("/")._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    return fill


def test_a_step_that_has_no_room_is_not_begun(recipe, nearly_full, monkeypatch, capfd):
    monkeypatch.setattr(Scratch, "run", lambda self, step: pytest.fail("it was begun"))
    nearly_full(1000)
    assert runner.train(recipe) == 1
    told = capfd.readouterr().err
    assert "stages.scratch: the disk is full: " in told
    assert re.search(r"/output was not written \(about \d\.\d MB are to come\); 0\.0 MB are free there", told)


def test_what_a_launch_before_has_written_is_room_for_it(tmp_path, nearly_full):
    nearly_full(0)
    (tmp_path / "checkpoint").write_bytes(bytes(600))
    disk.require_room(tmp_path, 1000)
    with pytest.raises(OSError, match=r"about 0\.0 MB are to come"):
        disk.require_room(tmp_path, 2000)


def test_a_checkpoint_that_has_no_room_is_not_begun(model, write, tmp_path, nearly_full, monkeypatch, capfd):
    """The first one fits and the second does not, which leaves the first to go on from."""
    train = {**TRAIN, "max_steps": 4, "save_steps": 2}
    stages = {"sft": {"model": {"model_name_or_path": model}, "data": write("sft.jsonl", SFT_ROWS), "train": train}}
    path = str(write_recipe(tmp_path, stages, wandb=False))
    with monkeypatch.context():
        monkeypatch.setattr(disk, "require_room", lambda *_: nearly_full(75_000))  # the weights take 60 KB
        assert runner.train(path) == 1
    (step,) = Recipe.load(path).steps
    assert [folder.name for folder in step.dir.glob("checkpoints/checkpoint-*")] == ["checkpoint-2"]
    assert re.search(r"checkpoint-4 was not written \(it takes \d\.\d MB\)", capfd.readouterr().err)
