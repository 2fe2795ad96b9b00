"""A recipe is the same plan in every process, and its steps can be chosen."""

import subprocess
import sys

import pytest
from conftest import ROOT
from planned import STAGES, fingerprints
from run_steps import write_recipe

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe


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


def test_planning_imports_no_torch(recipe):
    code = (
        "import sys; import _checkout; from trimtab.pipelines.planning.recipe import Recipe;"
        f"Recipe.load({str(recipe)!r});"
        f"Recipe.load({str(ROOT / 'recipes/tiny.yaml')!r}); print('torch' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "False"


def test_select_by_stage_and_from(recipe):
    loaded = Recipe.load(str(recipe))
    assert [s.name for s in loaded.select(only="dpo")] == ["dpo"]
    assert [s.name for s in loaded.select(start="dpo")] == ["dpo", "after"]
    with pytest.raises(RecipeError, match="did you mean 'dpo'"):
        loaded.select(only="dpoo")
