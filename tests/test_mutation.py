"""The mutation command: which changes it makes of a file, and that those which once lived are noticed."""

import ast
import importlib.util
import subprocess
import sys

import pytest
from conftest import ROOT

FOLDER = ROOT / "benchmarks" / "mutation"
SOURCE = '''\
"""A file."""
LIMIT = 3


def bounded(values, at_most=True):
    if not values:
        raise ValueError("none of 3")
    total = -sum(values) / 2
    return min(total, LIMIT) if at_most and total <= LIMIT else "more"
'''


@pytest.fixture
def mutants(monkeypatch, tmp_path):
    """The module that makes mutants, of files in a folder of its own."""
    spec = importlib.util.spec_from_file_location("mutants", FOLDER / "mutants.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutants", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def test_each_mutant_is_one_change_of_code_and_not_of_words(mutants, tmp_path):
    (tmp_path / "file.py").write_text(SOURCE)
    made = mutants.of_file("file.py")
    assert [(mutant.function, mutant.after) for mutant in made] == [
        ("", "LIMIT = 6"),
        ("bounded", "def bounded(values, at_most=False):"),
        ("bounded", "if values:"),
        ("bounded", "total = -sum(values) * 2"),
        ("bounded", "total = sum(values) / 2"),
        ("bounded", "total = -sum(values) / 4"),
        ("bounded", 'return min(total, LIMIT) if at_most or total <= LIMIT else "more"'),
        ("bounded", 'return min(total, LIMIT) if at_most and total < LIMIT else "more"'),
        ("bounded", 'return min(total, LIMIT) if at_most and total >= LIMIT else "more"'),
        ("bounded", 'return max(total, LIMIT) if at_most and total <= LIMIT else "more"'),
    ]
    for mutant in made:
        ast.parse(mutant.source())
        assert mutant.source().decode().count("\n") == SOURCE.count("\n")  # lines stay where they are


def test_a_choice_stays_where_other_lines_change(mutants, tmp_path):
    (tmp_path / "file.py").write_text(SOURCE)
    before = mutants.chosen(["file.py"], 4)
    (tmp_path / "file.py").write_text(SOURCE.replace('"""A file."""', '"""A file.\n\nOf more lines.\n"""'))
    after = mutants.chosen(["file.py"], 4)
    assert [mutant.key for mutant in after] == [mutant.key for mutant in before]
    assert len({mutant.key for mutant in before}) == 4
    assert after[0].line == before[0].line + 3


@pytest.mark.slow
def test_mutants_that_once_lived_are_killed():
    words = [sys.executable, str(FOLDER), "kept"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("killed: ") >= 15


def test_the_page_is_what_is_stored(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("mutants", "page"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    page = importlib.import_module("page")
    assert page.text() == page.PAGE.read_text(), "run `python benchmarks/mutation page`"
