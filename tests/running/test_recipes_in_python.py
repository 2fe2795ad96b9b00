"""`from trimtab import Recipe` in a notebook: a plan, a run of one stage, and what it leaves."""

import asyncio
import subprocess
import sys

import pytest
from conftest import SFT_ROWS
from run_steps import write_recipe

from trimtab import Recipe, RecipeError, RunFailed

SIZES = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SCRATCH = {"kind": "scratch", "vocab_size": 300, "config": {"model_type": "llama", "num_key_value_heads": 2, **SIZES}}


@pytest.fixture
def path(tmp_path, write):
    rows = write("sft.jsonl", SFT_ROWS)
    first = {**SCRATCH, "corpus": rows}
    stages = {"scratch": first, "again": {**first, "seed": 7}}
    return str(write_recipe(tmp_path, stages, wandb=False))


def test_one_stage_runs_inside_a_running_loop(path):
    """As in a notebook, whose cells run inside of an event loop."""

    async def cell() -> dict:
        return Recipe.load(path).run(only="scratch")

    steps = asyncio.run(cell())
    assert list(steps) == ["scratch"]
    assert (steps["scratch"].output / "config.json").is_file()
    assert [step.done for step in Recipe.load(path).steps] == [True, False]
    assert "again    scratch  " in str(Recipe.load(path))


def test_a_mistake_in_the_file_is_raised_and_a_run_that_fails_too(path):
    with pytest.raises(RecipeError, match="no stage"):
        Recipe.load(path, ["stages.nothing.seed=1"])
    recipe = Recipe.load(path, ["stages.scratch.corpus=nowhere.jsonl"])
    with pytest.raises(RunFailed) as failed:
        recipe.run()
    assert failed.value.code == 2
    with pytest.raises(RecipeError, match=r"nowhere\.jsonl"):
        recipe.check()


def test_the_package_imports_nothing_before_it_is_asked():
    code = "import sys, trimtab, trimtab.rewards; sys.exit('trimtab.pipelines' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_notebook_runs_it(path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from nbformat.v4 import new_code_cell, new_notebook

    cells = [
        new_code_cell("from trimtab import Recipe"),
        new_code_cell(f"steps = Recipe.load({path!r}).run(only='scratch')"),
        new_code_cell("print(steps['scratch'].done)"),
    ]
    notebook = nbclient.NotebookClient(new_notebook(cells=cells), timeout=120, kernel_name="python3").execute()
    assert notebook.cells[2].outputs[0].text == "True\n"
