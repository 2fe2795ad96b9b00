"""A plan neither waits for a hub that cannot be reached nor needs it; a run says what it misses."""

import pytest

from trimtab.pipelines.planning import hub, memos, preflight
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.scripts import run

RECIPE = """
stages:
  sft: {model: {model_name_or_path: org/model}, data: org/data, train: {}}
"""


@pytest.fixture
def recipe(write, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.is_reachable.cache_clear()
    yield write("recipe.yaml", RECIPE)
    hub.is_reachable.cache_clear()


def test_a_plan_says_what_it_has_not_looked_at(recipe, capsys):
    assert run.main([recipe, "--plan"]) == 0
    printed = capsys.readouterr()
    assert "1 steps, 0 done, 1 pending" in printed.out
    assert "recipe.yaml:3: stages.sft.model.model_name_or_path: org/model cannot be looked at" in printed.err
    assert "stages.sft.data: org/data cannot be looked at" in printed.err
    assert len([line for line in printed.err.splitlines() if memos.COLD not in line]) == 2


def test_libraries_are_not_asked_for_what_the_cache_has_no_folder_of(recipe, monkeypatch):
    """Their imports are most of such a plan's time."""
    for name in ("transformers.AutoTokenizer", "transformers.AutoConfig", "trl.get_dataset"):
        monkeypatch.setattr(name, None)
    assert run.main([recipe, "--plan"]) == 0


def test_what_the_cache_has_is_asked_for(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "prepared"))
    for folder in ("models--org--model", "prepared/org___rows"):
        (tmp_path / folder).mkdir(parents=True)
    hub.require("org/model", ())
    hub.require("org/Rows", (), "datasets")
    for name, kind in (("org/other", "models"), ("other/rows", "datasets")):
        with pytest.raises(hub.Unreachable):
            hub.require(name, (), kind)


def test_a_run_refuses(recipe):
    loaded = Recipe.load(recipe)
    with pytest.raises(RecipeError, match="org/model cannot be looked at: the hub cannot be reached"):
        preflight.check(loaded, loaded.steps)
    assert preflight.check(loaded, loaded.steps, without_hub=True)


def test_a_mistake_is_a_mistake_also_without_a_hub(recipe, capsys):
    assert run.main([recipe, "--plan", "stages.sft.train.learning_rat=1"]) == 2
    assert "did you mean 'learning_rate'" in capsys.readouterr().err


def test_what_is_a_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub.is_name("org/model")
    assert not hub.is_name("model")
    assert not hub.is_name("/org/model")
    assert not hub.is_name("org/model/output")
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert not hub.is_name("org/model")


def test_an_endpoint_that_refuses_is_not_reachable(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    hub.is_reachable.cache_clear()
    assert not hub.is_reachable()
    hub.is_reachable.cache_clear()
