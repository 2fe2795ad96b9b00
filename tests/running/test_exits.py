"""Code that ends the process in the middle of a step, and Ctrl-C: what is said, and with which exit code."""

import contextlib
import os
import signal
import sys
import threading

import pytest
from run_steps import write_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import launch, runner
from trimtab.pipelines.stages.scratch import Scratch

HERE = "test_exits.py:"


def leave(code):
    sys.exit(code)


def leave_at_once(code):
    os._exit(code)


def leave_at_once_from_a_thread():
    def leaves():
        with contextlib.suppress(SystemExit):
            leave_at_once(0)

    thread = threading.Thread(target=leaves)
    thread.start()
    thread.join()


def interrupt():
    raise KeyboardInterrupt


@pytest.fixture
def ended(write, tmp_path, monkeypatch, capfd):
    """Runs a step that does this, and returns the exit code and what was said."""

    def ended(does):
        monkeypatch.setattr(Scratch, "run", lambda self, step: does())
        rows = write("rows.jsonl", [{"prompt": "a", "completion": "b"}])
        config = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        stages = {"scratch": {"corpus": rows, "vocab_size": 300, "config": config}}
        code = runner.train(str(write_recipe(tmp_path, stages, wandb=False)))
        told = capfd.readouterr()
        return code, told.out + told.err

    return ended


@pytest.mark.parametrize("code", [0, None, 3, "enough"])
def test_sys_exit_is_never_success_and_its_line_is_named(ended, code):
    ending, told = ended(lambda: leave(code))
    assert ending == 1
    assert f"{HERE}{leave.__code__.co_firstlineno + 1}, in leave ended" in told
    assert f" ended the process with sys.exit({code!r}) before its work was done" in told
    assert "recipe.yaml:5: stages.scratch: " in told


def test_a_raised_keyboard_interrupt_is_no_ctrl_c(ended):
    code, told = ended(interrupt)
    assert code == 1
    assert "in interrupt raised KeyboardInterrupt" in told


@pytest.mark.parametrize("does", [lambda: leave_at_once(0), leave_at_once_from_a_thread], ids=["main", "thread"])
def test_an_exit_at_once_is_never_success(ended, does, monkeypatch):
    codes = []

    def gone(code):
        codes.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", gone)
    _, told = ended(does)
    assert codes == [1]
    assert f"{HERE}{leave_at_once.__code__.co_firstlineno + 1} ended the process with os._exit(0)" in told


def test_a_forked_child_ends_as_it_likes(ended):
    def forks():
        child = os.fork()
        if child == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        raise ValueError("the child is gone")

    assert "the child is gone" in ended(forks)[1]


def test_ctrl_c_ends_a_step_with_one_sentence(ended):
    code, told = ended(lambda: signal.raise_signal(signal.SIGINT))
    assert code == 130
    assert "was interrupted, and keeps what it has finished. The same command continues here" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("command", [runner.train, launch.run, launch.plan, launch.check_rewards])
def test_code_that_ends_the_process_while_it_is_planned_is_no_success(command, monkeypatch, capfd):
    monkeypatch.setattr(Recipe, "load", lambda *words: leave(0))  # stands for code that a plan imports with consent
    assert command("mine.yaml") == 1
    assert "in leave ended the process with sys.exit(0)" in capfd.readouterr().err
