"""Imports run one way through the rooms, files stay small, and nobody builds a drawer called utils."""

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

FILES = sorted(path for folder in ("pipelines", "rewards", "scripts") for path in (ROOT / folder).rglob("*.py"))
REWARDS = tuple(f"trimtab.rewards.{file.stem}" for file in (ROOT / "rewards").glob("[a-z]*.py"))
HEAVY = {"torch", "transformers", "accelerate", "peft", "datasets", "deepspeed", "wandb"}
# a room imports from itself and from the rooms before it
ROOMS = (
    "algorithms",
    "planning",
    "recording",
    "importing",
    "data",
    "trainers",
    "sampling",
    "training",
    "labelling",
    "scoring",
    "reporting",
    "forecasting",
    "shrinking",
    "stages",
    "running",
)
LIGHT = ("planning", "recording", "data", "stages")  # what a plan needs
VAGUE = {"utils", "util", "helpers", "common", "base", "manager", "misc", "found", "parts", "plugins", "tools"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room(path: Path) -> str:
    """The room of a file of pipelines, or the top-level folder of another one."""
    parts = path.relative_to(ROOT).parts
    return parts[1] if parts[0] == "pipelines" and len(parts) > 2 else parts[0]


@functools.cache
def tree(path: Path) -> ast.Module:
    """What a file says."""
    return ast.parse(path.read_text())


@functools.cache
def imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Modules a file imports; with `top_only`, without those inside functions and under TYPE_CHECKING."""
    modules = set()
    for node in tree(path).body if top_only else ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def rooms_entered(path: Path) -> set[str]:
    """The rooms that a file imports from."""
    ours = (module.split(".") for module in imports(path) if module.startswith("trimtab.pipelines."))
    return {parts[2] for parts in ours if parts[2] != "ROOT"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_run_one_way(path):
    modules = imports(path)
    assert not [module for module in modules if module.split(".")[0] in ("pipelines", "rewards", "scripts")]
    if room(path) == "scripts":
        return
    assert not [module for module in modules if module.startswith("trimtab.scripts")]
    if room(path) == "rewards":
        assert not rooms_entered(path), "a reward works without the pipeline"
        return
    assert not [m for m in modules if m.startswith(REWARDS)], "only kinds.find reaches them"
    if room(path) != "pipelines":
        below = ROOMS[: ROOMS.index(room(path)) + 1]
        assert rooms_entered(path) <= set(below)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_stages_never_import_stages_and_only_kinds_reaches_them(path):
    entered = [module for module in imports(path) if module.startswith("trimtab.pipelines.stages")]
    contract = {"Stage", "TrainerStage", "Metrics", "StepOptions"}
    assert {module.rpartition(".")[2] for module in entered} <= contract
    assert not entered or room(path) == "stages"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_only_tracking_knows_wandb_and_only_seams_knows_private_modules(path):
    modules = imports(path)
    if path.name not in ("tracking.py", "overview.py"):
        assert not any(module.split(".")[0] == "wandb" for module in modules)
    if path.parent.name != "seams":
        private = ("trl.trainer", "trl.experimental", "trl.models", "transformers.integrations", "accelerate.state")
        assert not [module for module in modules if module.startswith(private)]


def test_the_rooms_of_the_map_are_the_rooms_of_the_package():
    mapped = re.findall(r"^    (\w+)/ ", (ROOT / "pipelines" / "__init__.py").read_text(), re.MULTILINE)
    folders = {path.name for path in (ROOT / "pipelines").iterdir() if (path / "__init__.py").exists()}
    assert tuple(mapped) == ROOMS
    assert folders == set(ROOMS)
    assert [path.name for path in (ROOT / "pipelines").glob("*.py")] == ["__init__.py"], "every module has a room"


def test_a_wheel_has_every_folder_of_the_code():
    folders = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in FILES}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {f"trimtab.{folder}" for folder in folders} == set(packages) - {"trimtab"}


def test_the_picture_in_the_docs_shows_the_arrows_of_the_code():
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn = set(re.findall(r"^ +(\w+) --> (\w+)$", page, re.MULTILINE))
    arrows = {
        (room(path), entered)
        for path in FILES
        for entered in rooms_entered(path)
        if room(path) in ROOMS and entered != room(path)
    }
    assert drawn <= arrows, f"drawn, but not imported: {drawn - arrows}"
    reached = {(a, b) for a, b in drawn} | {(a, c) for a, b in drawn for b2, c in drawn if b == b2}
    for _ in ROOMS:
        reached |= {(a, c) for a, b in reached for b2, c in drawn if b == b2}
    assert arrows <= reached, f"imported, but no way is drawn: {arrows - reached}"


def test_algorithms_need_torch_at_most():
    for path in (ROOT / "pipelines" / "algorithms").rglob("*.py"):
        outside = {module.split(".")[0] for module in imports(path)} & (HEAVY | {"trl"})
        assert outside <= {"torch"}, name(path)


def test_what_a_plan_needs_imports_nothing_heavy():
    for path in FILES:
        if room(path) in LIGHT:
            heavy = {module.split(".")[0] for module in imports(path, top_only=True)} & HEAVY
            assert not heavy, f"{name(path)} imports {heavy} at its top"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_are_small_and_speaking(path):
    source = path.read_text()
    assert source.count("\n") <= 300, "split it by idea"
    assert path.stem not in VAGUE
    assert ast.get_docstring(tree(path)), "say what it is in a module docstring"
    if room(path) == "scripts" and not path.name.startswith("_"):
        assert source.count("\n") <= 90, "a script parses arguments"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_docstrings_begin_with_a_whole_sentence(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                first = text.split("\n\n")[0].rstrip()
                where = f"{name(path)}: {getattr(node, 'name', 'module')}"
                assert first[-1] in ".:!?", f"{where}: {first!r} is cut in two"
