"""A stage in a user's own module is a kind like any other: planned, checked, run, fingerprinted and shrunk."""

import sys
from pathlib import Path

import pytest
from outputs import metrics_of, rows_of
from run_steps import run_recipe, write_recipe
from short_trainings import plan, say, write_rows

from trimtab.pipelines.planning import kinds, preflight
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import runner
from trimtab.pipelines.shrinking import recipe as shrinking

MODULE = '''
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.data import loading
from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Polite(Stage):
    """Prompts with a word of courtesy at their end, `times` times."""

    data: Annotated[Data, PROMPTS]
    word: str = "please"
    times: int = 3
    note: str | None = None

    neutral: ClassVar[tuple[str, ...]] = ("note",)
    shows: ClassVar[Shows] = Shows({"Courtesy": ("courtesy",)}, ("rows", "courtesy"))

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Any) -> dict[str, Any]:
        return {**super().small(block, miniature), "times": 1}

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        rows = loading.load(self.data, (*step.path, "data"))
        said = " ".join([self.word] * self.times)
        write_rows(step, [{"prompt": f"{row['prompt'][-1]['content']} {said}"} for row in rows])
        return {"rows": len(rows), "courtesy": self.times}
'''


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """The file of the user's module, outside of the repository and on the import path."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "my_stages.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield folder / "my_stages.py"
    sys.modules.pop("my_stages", None)


@pytest.fixture
def stage(tmp_path):
    return {"kind": "my_stages.Polite", "data": write_rows(tmp_path / "prompts.jsonl", say(4))}


def test_it_runs_and_the_next_stage_reads_what_it_leaves(stage, tmp_path):
    stages = {"polite": stage, "twice": {"kind": "my_stages.Polite", "data": "$polite", "times": 1}}
    steps = plan(tmp_path, stages)
    assert [step.kind for step in steps.values()] == ["my_stages.Polite"] * 2
    assert steps["twice"].inputs == (steps["polite"],)
    ran = run_recipe(tmp_path, {"polite": {**stage, "times": 2}})["polite"]
    assert rows_of(ran)[0]["prompt"] == "say a b  please please"
    assert metrics_of(ran) == {"rows": 4, "courtesy": 2}
    assert kinds.find(kinds.STAGES, ran.kind).shows.results == ("rows", "courtesy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tmies": 2}, "stages.polite.tmies: unknown key for kind 'my_stages.Polite', did you mean 'times'?"),
        ({"times": "often"}, "stages.polite.times: expected a whole number, got 'often'"),
        ({"kind": "my_stages.Polight"}, "my_stages.py has no 'Polight'"),
        ({"kind": "their_stages.Polite"}, "stages.polite.kind: unknown kind 'their_stages.Polite'"),
    ],
)
def test_mistakes_are_those_of_any_kind(stage, change, message, tmp_path):
    path = str(write_recipe(tmp_path, {"polite": {**stage, **change}}))
    with pytest.raises(RecipeError) as caught:
        preflight.check(recipe := Recipe.load(path), recipe.steps)
    assert message in str(caught.value)


def test_its_columns_are_checked_by_its_form(stage, tmp_path):
    stage["data"] = write_rows(tmp_path / "questions.jsonl", [{"question": "Why?"}])
    path = str(write_recipe(tmp_path, {"polite": stage}))
    with pytest.raises(RecipeError, match=r"recipe.yaml:\d+: stages.polite.data: .*has no column 'prompt'"):
        preflight.check(recipe := Recipe.load(path), recipe.steps)


def test_what_it_calls_neutral_is_not_in_its_fingerprint_and_its_source_is(stage, module, tmp_path):
    def fingerprint(**changes):
        return plan(tmp_path, {"polite": {**stage, **changes}})["polite"].fingerprint

    before = fingerprint()
    assert fingerprint(note="for Friday") == before
    assert fingerprint(word="kindly") != before
    assert fingerprint(times=3) == before  # its default
    module.write_text(MODULE.replace('"please"', '"if you would"'))
    assert fingerprint() != before


def test_it_shrinks(stage, tmp_path, monkeypatch):
    """Data from the Hub become rows of its form, and what `small` says is changed."""
    monkeypatch.setattr(shrinking, "FOLDER", tmp_path / "shrunk")
    path = shrinking.shrunk(str(write_recipe(tmp_path, {"polite": {**stage, "data": "org/prompts"}})))
    assert runner.train(path) == 0
    (step,) = Recipe.load(path).steps
    assert metrics_of(step)["courtesy"] == 1
    assert Path(step.options["data"]).is_relative_to(tmp_path / "shrunk")
    assert rows_of(step)
