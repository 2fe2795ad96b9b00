"""A recipe is the same plan in every process, and its steps can be chosen."""

import subprocess
import sys

import pytest
from conftest import ROOT
from planned import STAGES, fingerprints
from run_steps import write_recipe

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.scripts import run


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path, STAGES)


def test_same_recipe_same_plan_in_another_process(recipe):
    code = (
        "import _checkout; from trimtab.pipelines.planning.recipe import Recipe;"
        f"print([s.fingerprint for s in Recipe.load({str(recipe)!r}).steps])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == str(list(fingerprints(recipe).values()))


HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets", "pyarrow", "huggingface_hub")


def test_a_plan_imports_nothing_heavy_before_keys_are_right_nor_after_what_it_remembers(tmp_path, capsys):
    tiny, output = str(ROOT / "recipes/tiny.yaml"), f"output_dir={tmp_path}"
    assert run.main([tiny, "--plan", output]) == 0  # and remembers what the libraries say
    capsys.readouterr()
    code = (
        "import contextlib, io, sys; import _checkout; from trimtab.scripts import run\n"
        "for words in (['stages.dpo.train.betaa=0.1'], []):\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        f"        code = run.main([{tiny!r}, '--plan', {output!r}, *words])\n"
        f"    print(code, [name for name in {HEAVY} if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True
    )
    assert "did you mean 'beta'" in ran.stderr
    assert ran.stdout.splitlines() == ["2 []", "0 ['pyarrow']"]  # which reads the rows that are there


def test_select_by_stage_and_from(recipe):
    loaded = Recipe.load(str(recipe))
    assert [s.name for s in loaded.select(only="dpo")] == ["dpo"]
    assert [s.name for s in loaded.select(start="dpo")] == ["dpo", "after"]
    with pytest.raises(RecipeError, match="did you mean 'dpo'"):
        loaded.select(only="dpoo")
