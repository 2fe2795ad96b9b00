"""Two recipes or two steps, option by option, with what they read and what came of them."""

import json
from pathlib import Path

import pytest
from conftest import SFT_ROWS
from run_steps import run_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.scripts import store


@pytest.fixture
def recipes(write, tmp_path):
    """Two recipes that share a step; their others differ in an option and in a file, and one has a step more."""
    text = [json.dumps(row) + "\n" for row in SFT_ROWS]
    all_rows, some_rows = write("all.jsonl", "".join(text)), write("some.jsonl", "".join(text[:8]))
    mixed = {"kind": "mix", "synthetic": [all_rows], "real": all_rows, "real_fraction": 0.5}
    stages = {"shared": mixed, "own": {**mixed, "real": "$shared"}, "more": {**mixed, "seed": 1}}
    other = {"shared": mixed, "own": {**mixed, "synthetic": [some_rows], "real_fraction": 0.25, "real": "$shared"}}
    paths = []
    for name, block in {"one": stages, "two": other}.items():
        (tmp_path / name).mkdir()
        run_recipe(tmp_path / name, block, name=name)
        paths.append(str(tmp_path / name / "recipe.yaml"))
    return paths


def told(capsys, *words):
    """The exit code, and the words of each line."""
    capsys.readouterr()
    code = store.main(["diff", *words])
    return code, [line.split() for line in capsys.readouterr().out.splitlines()]


def test_recipes_differ_in_options_hashes_and_metrics_and_equal_steps_are_said_once(recipes, capsys):
    code, lines = told(capsys, *recipes)
    assert code == 1
    assert lines[0] == ["the", "same:", "shared"]
    assert lines[1][0] == "own"
    assert ["real_fraction", "0.5", "0.25"] in lines
    (data,) = [line for line in lines if line[0] == "synthetic.0.sha256"]
    assert len(data[1]) == len(data[2]) == 12
    metrics = lines[lines.index(["metrics", "done", "done"]) :]
    assert ["rows", "24", "11"] in metrics
    assert lines[-1] == ["only", "in", f"{recipes[0]}:", "more"]


def test_steps_of_other_names_are_the_same_by_their_fingerprints(recipes, capsys):
    text = Path(recipes[0]).read_text()
    Path(recipes[1]).write_text(text.replace("shared", "common").replace("name: one", "name: two"))
    code, lines = told(capsys, *recipes)
    assert (code, lines) == (0, ["the same: shared (common there), own, more".split()])


def test_steps_are_named_by_recipe_or_folder(recipes, capsys):
    folder = Recipe.load(recipes[0]).steps[1].view
    for word in (str(folder), f"{recipes[0]}:own"):
        code, lines = told(capsys, word, f"{recipes[1]}:own")
        assert code == 1
        assert ["real_fraction", "0.5", "0.25"] in lines
    assert told(capsys, str(folder), f"{recipes[0]}:own") == (0, [["the", "same:", "own"]])


def test_what_is_no_step_is_said_with_a_cure(recipes, tmp_path, capsys):
    for word in (str(tmp_path), "nothing.yaml", f"{recipes[0]}:owm"):
        assert store.main(["diff", word, recipes[1]]) == 2
    error = capsys.readouterr().err
    assert "is no folder of a finished step: name a recipe, recipe:step or such a folder" in error
    assert "did you mean 'own'?" in error
