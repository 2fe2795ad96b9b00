"""The tables of the pages are those of what benchmarks have stored, and that is no older than what it was made by."""

import importlib.util
import json
import sys
import types

import pytest
from conftest import ROOT


@pytest.fixture
def numbers(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("stored_numbers", ROOT / "benchmarks" / "stored_numbers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def elsewhere(numbers, tmp_path, monkeypatch):
    """A repository of its own, with a program, a recipe's place and a page."""
    for folder in ("benchmarks/artifacts", "docs/results", "docs/figures", "recipes"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "benchmarks" / "study.py").write_text('"""A study."""\nRATE = 0.1\n')
    (tmp_path / "docs" / "page.md").write_text("<!-- numbers: study arms -->\n<!-- end of numbers -->\n\nThe end.\n")
    monkeypatch.setattr(numbers, "ROOT", tmp_path)
    monkeypatch.setattr(numbers, "FOLDER", tmp_path / "benchmarks" / "artifacts")
    monkeypatch.setattr(numbers, "subprocess", Git)
    monkeypatch.setattr("sys.argv", [str(tmp_path / "benchmarks" / "study.py"), "rounds=2", "save=yes"])
    rows = [{"arm": "a", "gold": [0.25, 0.35, 0.30]}, {"arm": "b", "gold": [1.0, 1.0, 1.0]}]
    numbers.store("study", {"arms": rows}, seeds="3", code=["benchmarks/study.py"])
    return tmp_path


class Git:
    """Stands for subprocess."""

    @staticmethod
    def run(words, **_):
        assert words[0] == "git"
        return type("Ran", (), {"stdout": "0123abc\n"})


def test_every_page_is_what_is_stored(numbers, capsys):
    assert numbers.main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(("values", "words"), [
    ([0.25, 0.35, 0.30], "0.30 ± 0.03"),
    ([10.0, 30.0], "20 ± 10"),
    ([0.0, 0.00024], "0.00012 ± 0.00012"),
    ([-0.0041, 0.004], "0.000 ± 0.004"),
    ([2.5e-7, 3.5e-7], "3e-07 ± 5e-08"),
    ([1.0, 1.0], "1"),
    ([0.0, 1e-16], "0"),
    ([1.53, 1.53 + 1e-10], "1.53"),
    (0.5, "0.5"),
    ("xi", "xi"),
    (12, "12"),
])  # fmt: skip
def test_a_cell_has_the_digits_that_its_error_leaves(numbers, values, words):
    assert numbers.cell(values) == words


def test_a_page_gets_its_table_and_keeps_its_text(numbers, elsewhere, capsys):
    assert numbers.main(["--check"]) == 1
    assert "docs/page.md is not what is stored" in capsys.readouterr().out
    assert numbers.main([]) == 0
    page = (elsewhere / "docs" / "page.md").read_text()
    assert "| arm | gold |\n| --- | --- |\n| a | 0.30 ± 0.03 |\n| b | 1 |\n<!-- end" in page
    assert page.endswith("\n\nThe end.\n")
    assert numbers.main(["--check"]) == 0
    facts = numbers.table(json.loads((elsewhere / "benchmarks" / "artifacts" / "study.json").read_text()), "facts")
    assert "| commit | 0123abc |" in facts
    assert "| command | `python benchmarks/study.py rounds=2 save=yes` |" in facts


def test_words_say_what_the_tables_say(numbers, elsewhere, capsys):
    page = elsewhere / "docs" / "results" / "study.md"
    typed = "\n\n## Before\n\n<!-- typed -->\n0.31 ± 0.04 by `python benchmarks/study.py`.\n"
    places = "<!-- numbers: study arms -->\n<!-- end of numbers -->\n\n"
    page.write_text(places + "Arm a is at 0.30 ± 0.03." + typed)
    assert numbers.main([]) == 0
    page.write_text(places + "Arm a is at 0.31 ± 0.04." + typed)
    assert numbers.main([]) == 1
    assert capsys.readouterr().out == "docs/results/study.md says 0.31 ± 0.04, which stands in no table\n"


def test_other_pages_say_what_a_table_of_some_study_says(numbers, elsewhere, capsys):
    (elsewhere / "docs" / "results" / "study.md").write_text("| `make x` |\n| 0.5 ± 0.1 |\n")
    (elsewhere / "docs" / "results" / "README.md").write_text("| [study](study.md) | 0.5 ± 0.1 |\n")
    assert numbers.main([]) == 0
    (elsewhere / "docs" / "results" / "README.md").write_text("| [study](study.md) | 0.6 ± 0.1 |\n")
    (elsewhere / "docs" / "method.md").write_text("It gains 0.7 ± 0.1.\n")
    assert numbers.main([]) == 1
    said = capsys.readouterr().out
    assert "docs/results/README.md says 0.6 ± 0.1, which stands in no table" in said
    assert "docs/method.md says 0.7 ± 0.1, which stands in no table" in said


def test_numbers_without_a_command_are_a_mistake(numbers, elsewhere, capsys):
    (elsewhere / "docs" / "results" / "study.md").write_text("It was 0.5 ± 0.1.\n")
    assert numbers.main([]) == 1
    assert capsys.readouterr().out == "docs/results/study.md has numbers and no command that they come from\n"


def test_curves_become_a_picture_that_is_as_old_as_they(numbers, elsewhere, capsys):
    row = {"panel": "a", "x": "step", "y": "reward", "curve": "b", "at": [0, 1], "values": [0.0, 1.0]}
    numbers.store("waves", {"all": [row]}, seeds="1")
    assert numbers.main(["--check"]) == 1
    assert "docs/figures/waves-all.svg is not of the curves that are stored" in capsys.readouterr().out
    assert numbers.main([]) == 0
    drawn = (elsewhere / "docs" / "figures" / "waves-all.svg").read_text()
    assert numbers.main(["--check"]) == 0
    numbers.store("waves", {"all": [row | {"values": [0.0, 2.0]}]}, seeds="1")
    numbers.main([])
    assert (elsewhere / "docs" / "figures" / "waves-all.svg").read_text() != drawn


def test_a_curve_is_the_mean_over_runs_as_far_as_all_of_them_go(numbers, tmp_path):
    row = numbers.pictures.curve("a", "round", "gold", "b", range(3), [[0.0, 1.0, 5.0], [2.0, 1.0]])
    assert (row["at"], row["values"], row["errors"]) == ([0, 1], [1.0, 1.0], [1.0, 0.0])
    assert "errors" not in numbers.pictures.curve("a", "round", "gold", "b", range(3), [[0.0, 1.0, 5.0]])
    numbers.pictures.draw([row, row | {"panel": "c"}], tmp_path / "waves.svg")
    drawn = (tmp_path / "waves.svg").read_text()
    assert drawn.count("FillBetweenPolyCollection") == 2
    assert drawn.count(">b</text>") == 1  # one legend for panels of the same curves


def test_the_code_that_numbers_come_from_is_found_by_itself(numbers, monkeypatch):
    monkeypatch.setitem(sys.modules, "study", types.SimpleNamespace(__file__=str(ROOT / "benchmarks" / "pictures.py")))
    monkeypatch.setitem(
        sys.modules, "other", types.SimpleNamespace(__file__=str(ROOT / "benchmarks" / "best_of_n.py"))
    )
    code = numbers.imported()
    assert "benchmarks/best_of_n.py" in code
    assert "pipelines/algorithms/statistics.py" in code
    assert not {"benchmarks/pictures.py", "benchmarks/stored_numbers.py"} & set(code)


def test_many_values_are_kept_as_their_mean_and_error(numbers, elsewhere):
    numbers.store("many", {"arms": [{"gold": [float(i % 2) for i in range(900)]}]}, seeds="900")
    row = json.loads((elsewhere / "benchmarks" / "artifacts" / "many.json").read_text())["tables"]["arms"][0]
    assert row["gold"] == {"mean": 0.5, "error": pytest.approx(0.5 / 899**0.5, rel=1e-5), "of": 900}
    assert numbers.cell(row["gold"]) == "0.500 ± 0.017"


def test_numbers_are_old_when_the_program_has_changed_and_not_when_its_words_have(numbers, elsewhere, capsys):
    numbers.main([])
    program = elsewhere / "benchmarks" / "study.py"
    program.write_text('"""A study, in other words."""\nRATE = 0.1  # as ever\n')
    assert numbers.main(["--check"]) == 0
    program.write_text('"""A study."""\nRATE = 0.2\n')
    assert numbers.main(["--check"]) == 1
    assert "study.json is older than benchmarks/study.py" in capsys.readouterr().out
    program.unlink()
    assert numbers.main(["--check"]) == 1
    assert "study.json is older than benchmarks/study.py" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "is_of_steps"), [([], True), (["inputs.model=runs/mine"], False)])
def test_a_recipe_of_files_that_not_every_clone_has_is_not_planned_again(
    numbers, elsewhere, monkeypatch, words, is_of_steps
):
    monkeypatch.setattr(numbers, "steps", lambda path, overrides: {"sft": "0123"})
    monkeypatch.setattr(numbers, "imported", lambda: ["benchmarks/study.py"])
    recipe = (str(elsewhere / "recipes" / "mine.yaml"), words)
    numbers.show("mine", {"arms": [{"arm": "a"}]}, seeds="1", recipe=recipe)
    stored = json.loads((elsewhere / "benchmarks" / "artifacts" / "mine.json").read_text())
    assert (stored["recipe"] is not None, stored["code"] == {}) == (is_of_steps, is_of_steps)


def test_a_recipe_is_named_as_it_is_on_every_machine(numbers, monkeypatch, tmp_path):
    monkeypatch.setattr(numbers, "FOLDER", tmp_path)
    monkeypatch.setattr(numbers, "subprocess", Git)
    monkeypatch.setattr("sys.argv", [str(ROOT / "benchmarks" / "best_of_n.py")])
    recipe = (str(ROOT / "recipes" / "tiny-constrained.yaml"), ["seed=1"])
    artifact = json.loads(numbers.store("study", {}, seeds="1", recipe=recipe).read_text())
    assert artifact["recipe"]["words"] == ["recipes/tiny-constrained.yaml", "seed=1"]
    assert numbers.old(artifact) == []


def test_numbers_are_old_when_a_step_of_their_recipe_has_changed(numbers, monkeypatch):
    artifact = {"code": {}, "recipe": {"words": ["recipes/tiny-constrained.yaml"]}}
    artifact["recipe"]["steps"] = numbers.steps("recipes/tiny-constrained.yaml", [])
    assert numbers.old(artifact) == []
    artifact["recipe"]["words"].append("stages.constrained.train.beta=0.3")
    changed = numbers.old(artifact)
    assert changed[0] == "recipes/tiny-constrained.yaml: constrained"
    assert not [name for name in changed if name.endswith((": sft", ": coverage"))]
