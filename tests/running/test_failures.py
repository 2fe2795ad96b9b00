"""What ends a step is one line: whose exception it is, where it stands in the recipe, and where the traceback is."""

import os

import pytest
from launches import two_ranks
from run_steps import write_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import runner
from trimtab.pipelines.stages.scratch import Scratch
from trimtab.scripts import run


@pytest.fixture
def stages(write):
    rows = write("rows.jsonl", [{"prompt": "a", "completion": "b"}])
    config = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {"scratch": {"corpus": rows, "vocab_size": 300, "config": config}}


@pytest.fixture
def failing(stages, tmp_path, monkeypatch, capfd):
    """Runs the recipe with a stage that does this, and returns exit code, the error's lines and the step."""

    def failing(does):
        monkeypatch.setattr(Scratch, "run", lambda self, step: does())
        path = write_recipe(tmp_path, stages, wandb=False)
        code = runner.train(str(path))
        told = capfd.readouterr().err
        lines = [line for line in told.splitlines() if line.startswith("error: ")]
        if os.environ.get("TRIMTAB_TRACEBACK"):
            assert "Traceback (most recent call last)" in told
        return code, lines, Recipe.load(str(path)).steps[0]

    return failing


def refused_by_a_library():
    from transformers import GenerationConfig

    GenerationConfig(max_new_tokens=0).validate()


def test_what_a_library_refuses_is_a_mistake_with_its_place(failing, tmp_path):
    code, (line,), step = failing(refused_by_a_library)
    assert code == 2
    assert line.startswith(f"error: {tmp_path}/recipe.yaml:5: stages.scratch: ValueError: ")
    assert "max_new_tokens" in line
    assert "(transformers/generation/configuration_utils.py:" in line
    assert "a bug" not in line
    assert f"{step.dir}/traceback.txt has the traceback, TRIMTAB_TRACEBACK=1 prints it" in line
    assert "Traceback (most recent call last)" in (step.dir / "traceback.txt").read_text()


def full_disk():
    os.stat("/no/such/file")


def test_what_the_machine_refuses_is_no_mistake_of_the_recipe(failing):
    code, (line,), _ = failing(full_disk)
    assert code == 1
    assert "FileNotFoundError: " in line


def test_a_bug_of_ours_is_called_one_and_its_traceback_is_printed_on_request(failing, monkeypatch):
    from trimtab.pipelines.planning import numbers

    monkeypatch.setenv("TRIMTAB_TRACEBACK", "1")  # which `failing` looks for
    code, (line,), _ = failing(lambda: numbers.threshold(f"{__file__}#a", None))
    assert code == 1
    assert "stages.scratch: a bug of Trimtab's: TypeError: " in line
    assert "(pipelines/planning/errors.py:" in line


def test_a_secret_is_in_neither(failing):
    def refused():
        raise ValueError("no access for hf_abcdefghijklmnop")

    _, (line,), step = failing(refused)
    assert "hf_abc" not in line + (step.dir / "traceback.txt").read_text()


STAGE = """
from dataclasses import dataclass
from transformers import GenerationConfig
from trimtab.pipelines.stages import Stage

@dataclass(kw_only=True)
class Broken(Stage):
    def run(self, step):
        GenerationConfig(max_new_tokens=0).validate()
"""


def test_two_ranks_say_it_once_and_the_launcher_ends_with_their_code(tmp_path, monkeypatch, capfd):
    (tmp_path / "broken_stage.py").write_text(STAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = write_recipe(tmp_path, {"broken": {"kind": "broken_stage.Broken", "accelerate": "cpu"}}, wandb=False)
    _, out = two_ranks(path)
    assert out.count("stages.broken: ValueError: ") == 1, out


@pytest.mark.slow
def test_the_launcher_ends_with_the_code_of_a_rank(tmp_path, monkeypatch, capfd):
    (tmp_path / "broken_stage.py").write_text(STAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = write_recipe(tmp_path, {"broken": {"kind": "broken_stage.Broken", "accelerate": "cpu"}}, wandb=False)
    assert run.main([str(path)]) == 2
    told = capfd.readouterr().err
    assert told.count("ValueError: ") == 1
    assert "Traceback" not in told
