"""Launches that are asked to stop in a chosen place, and undisturbed ones for comparison."""

import contextlib
import itertools
import os
import pkgutil

import pytest
from run_steps import run_recipe

from trimtab.pipelines.recording import tracking
from trimtab.pipelines.running import runner

TIMES = ("time", "runtime", "per_second")  # what two runs that are equal do not share


def interrupted(recipe, number, place, call, capsys):
    """What a launch says that gets the signal in the n-th call of a function; it must end with the signal's code."""
    function, calls = pkgutil.resolve_name(f"trimtab.pipelines.{place}"), itertools.count(1)

    def signals(*args, **kwargs):
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"trimtab.pipelines.{place}", signals)
        assert runner.train(str(recipe)) == 128 + number
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    line = out.splitlines()[-1]
    assert line.endswith("The same command continues here")
    return line


@contextlib.contextmanager
def killed_in_step(trainer, number):
    """Inside, a training by a class of trainers dies in its step after `number`, as by a kill; it has to."""

    class Killed(BaseException):
        pass

    def killed(self, *args, **kwargs):
        if self.state.global_step == number:
            raise Killed
        return training_step(self, *args, **kwargs)

    training_step = trainer.training_step
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):  # noqa: PT012
        patch.setattr(trainer, "training_step", killed)
        yield


def in_folder(tmp_path, name, stages):
    """The finished steps of a recipe in a folder of its own, by name."""
    (tmp_path / name).mkdir()
    return run_recipe(tmp_path / name, stages)


def again_in(tmp_path):
    """The recipe that `in_folder` has run in `undisturbed`, for a run of its own."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text((tmp_path / "undisturbed" / "recipe.yaml").read_text().replace("/undisturbed/", "/"))
    return recipe


def timeless(step):
    """The rows of a step's metrics.jsonl without times."""
    rows = tracking.read(step.dir / "metrics.jsonl")
    return [{key: value for key, value in row.items() if not key.endswith(TIMES)} for row in rows]
