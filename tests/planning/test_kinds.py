"""Words become classes: ours, and those of a user's files beside the recipe."""

import subprocess
import sys

import pytest
from conftest import ROOT

from trimtab.pipelines.planning import kinds, schema
from trimtab.pipelines.planning.errors import RecipeError


def test_every_file_is_a_word_and_every_word_a_class():
    for package in (kinds.STAGES, kinds.REWARDS):
        for word in kinds.words(package):
            assert kinds.word_of(kinds.find(package, word)) == word


REWARD = "def reward(prompts, completions, **columns):\n    return [2.0] * len(completions)\n"


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A user's folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    sys.path[:] = [path for path in sys.path if path != str(tmp_path)]


def test_a_file_called_rewards_beside_the_recipe_is_the_users(beside):
    (beside / "rewards.py").write_text(
        "def polite(prompts, completions, **columns):\n    return [2.0] * len(completions)\n"
    )
    reward = schema.load_reward({"kind": "rewards.polite"})
    assert reward(prompts=["p"], completions=["c"]) == [2.0]
    with pytest.raises(RecipeError, match=r"rewards\.py has no 'rude'"):
        schema.load_reward({"kind": "rewards.rude"})


def test_where_our_own_folder_would_hide_it_the_error_says_so(tmp_path):
    """In a checkout's root a file rewards.py cannot be seen: the folder rewards/ has the name."""
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards.py").write_text("")
    code = (
        "import _checkout, os; from pathlib import Path; from trimtab.pipelines.planning import kinds\n"
        f"os.chdir({str(tmp_path)!r}); kinds.ROOT = Path.cwd()\n"
        "kinds.find(kinds.REWARDS, 'rewards.polite', ('rewards', 'polite'))"
    )
    words = [sys.executable, "-c", code]
    failed = subprocess.run(words, cwd=ROOT / "scripts", capture_output=True, text=True)
    assert "rewards.polite: rewards.py in this folder is hidden by Trimtab's own rewards/" in failed.stderr


def test_a_module_that_misses_a_package_of_its_own_says_which(beside):
    (beside / "needy.py").write_text(f"import no_such_package\n{REWARD}")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        kinds.find(kinds.REWARDS, "needy.reward")


def test_the_source_of_a_kind_is_known_without_importing_it(beside):
    (beside / "explosive.py").write_text("raise SystemExit(1)\n")
    sys.path.insert(0, str(beside))
    assert kinds.source_file(kinds.REWARDS, "explosive.reward") == beside / "explosive.py"
    assert kinds.source_file(kinds.REWARDS, "length") == ROOT / "rewards" / "length.py"
    assert kinds.source_file(kinds.REWARDS, "no_such_kind") is None
