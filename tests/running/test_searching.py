"""A search: trials are points that Optuna chooses, the same ones after a kill, and a finished trial costs nothing."""

import pytest
import yaml

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import making, runner

SPACE = {"stages.world.prompts": {"low": 8, "high": 64}, "seed": [1, 2]}
SEARCH = {"metric": "world/rows/prompts/train", "trials": 3, "seed": 5}
WORLD = {"sft": 16, "pairs": 16, "test": 4}


@pytest.fixture
def document(tmp_path):
    """A recipe that searches, in a folder of its own for each name."""

    def document(folder="runs", sweep=SPACE, search=None):
        path = tmp_path / "r.yaml"
        top = {"name": "r", "output_dir": str(tmp_path / folder), "wandb": False}
        values = {**top, "sweep": sweep, "search": {**SEARCH, **(search or {})}, "stages": {"world": WORLD}}
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return str(path)

    return document


def tried(path):
    return [(trial.params, trial.value, trial.state.name) for trial in Recipe.load(path).study.trials()]


def test_a_search_that_is_killed_tries_what_it_would_have_tried(document, capsys, monkeypatch):
    path = document("whole")
    assert Recipe.load(path).points[0].setting == ""  # before the first trial, the recipe itself
    assert runner.train(path) == 0
    undisturbed = tried(path)
    assert [state for *_, state in undisturbed] == ["COMPLETE"] * 3
    assert len({params["stages.world.prompts"] for params, *_ in undisturbed}) > 1
    recipe = Recipe.load(path)
    assert len(recipe.points) == 6
    best = max(value for _, value, _ in undisturbed)
    assert f"has the best world/rows/prompts/train, {best:.4g}" in capsys.readouterr().out
    assert "Measure it again" in (recipe.run / "comparison.html").read_text()

    path = document("killed")
    made = []

    def killed(recipe, step, distributed, *, check):
        if len(made) == 3:  # in the middle of the second trial
            raise KeyboardInterrupt
        made.append(step.name)
        return make(recipe, step, distributed, check=check)

    make = making.make
    monkeypatch.setattr(making, "make", killed)
    runner.train(path)
    assert [state for *_, state in tried(path)] == ["COMPLETE", "RUNNING"]
    made[:] = []
    monkeypatch.setattr(making, "make", lambda *args, **kwargs: made.append(args[1].name) or make(*args, **kwargs))
    assert runner.train(path) == 0
    assert tried(path) == undisturbed
    assert len(made) <= 3  # one of the second trial, two of the third
    made[:] = []
    assert runner.train(path) == 0
    assert made == []


def test_more_trials_go_on_and_another_recipe_begins_anew(document):
    path = document(search={"trials": 1})
    assert runner.train(path) == 0
    first = tried(path)
    path = document(search={"trials": 2})
    assert tried(path) == first
    document(search={"seed": 6})
    assert tried(path) == []


@pytest.mark.parametrize(
    ("sweep", "search", "message"),
    [
        (SPACE, {"metric": "wrld/x"}, "search.metric: no step 'wrld', did you mean 'world'?"),
        (SPACE, {"metric": "world"}, "search.metric: names no metric of a step"),
        (SPACE, {"trial": 3}, "search.trial: unknown key for a search, did you mean 'trials'?"),
        (SPACE, {"trials": -1}, "search.trials: must be at least 1, got -1"),
        (SPACE, {"sampler": "tpee"}, "search.sampler: "),
        ({"seed": [1]}, {}, "search: has nothing to choose: give `sweep` a path that is no seed"),
        ({"stages.world.prompts": {"low": 9, "high": 8}}, {}, "low must be below high, got 9 and 8"),
        ({"stages.world.prompts": {"low": 1, "high": 8, "lg": 1}}, {}, "unknown key for a range, did you mean 'log'?"),
        ({"stages.world.prompts": {"low": "a", "high": 8}}, {}, "expected a number, got 'a'"),
        ({"stages.world.prompts": [8, 8]}, {}, "8 is given twice"),
    ],
)
def test_mistakes_have_a_place_and_a_cure(document, capsys, sweep, search, message):
    assert runner.train(document(sweep=sweep, search=search)) == 2
    assert message in capsys.readouterr().err


def test_a_metric_that_is_not_there_names_those_that_are(document, capsys):
    assert runner.train(document(search={"metric": "world/rows/promts/train", "trials": 1})) == 2
    assert "did you mean 'rows/prompts/train'?" in capsys.readouterr().err


def test_a_range_is_for_a_search_alone(document, capsys):
    assert runner.train(document(), ["search=null"]) == 2
    assert "a range is for a `search` to choose from" in capsys.readouterr().err
