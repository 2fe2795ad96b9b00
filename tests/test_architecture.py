"""Imports run one way, files stay small, and nobody builds a drawer called utils."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

FILES = sorted(p for folder in ("pipelines", "rewards", "scripts") for p in (ROOT / folder).rglob("*.py"))
HEAVY = {"torch", "transformers", "accelerate", "peft", "datasets", "deepspeed", "wandb"}
# who may import whom, among our own modules; a folder stands for its files
ALLOWED = {
    "scripts": {"scripts", "pipelines", "rewards"},
    "pipelines/stages": {"pipelines", "rewards"},
    "pipelines/trainers": {
        "pipelines.algorithms",
        "pipelines.seams",
        "pipelines.trainers",
        "pipelines.generation",
        "rewards",
    },
    "pipelines/algorithms": {"pipelines.algorithms"},
    "pipelines/recipe.py": {"pipelines.artifacts", "pipelines.errors", "pipelines.plugins", "pipelines.document"},
    "pipelines/document.py": {"pipelines.errors"},
    "pipelines/errors.py": set(),
    "pipelines/plugins.py": {"pipelines.errors", "pipelines.found", "rewards"},
    "pipelines/found.py": {"pipelines.errors"},
    "pipelines/artifacts.py": set(),
    "pipelines/seams.py": set(),
    "pipelines": {"pipelines", "rewards"},
    "rewards": {"rewards"},
}
LIGHT = (
    "recipe.py",
    "document.py",
    "errors.py",
    "plugins.py",
    "artifacts.py",
    "preflight.py",
    "tracking.py",
    "data.py",
    "world.py",
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Modules a file imports; with `top_only`, without those inside functions and under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module in ("pipelines", "scripts")}
    return found - {"pipelines", "scripts"} if "pipelines" in found else found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_run_one_way(path):
    rule = max((key for key in ALLOWED if name(path).startswith(key)), key=len)
    for module in imports(path):
        if module.split(".")[0] in ("pipelines", "rewards", "scripts"):
            assert any(module == ok or module.startswith(f"{ok}.") for ok in ALLOWED[rule]), f"{name(path)}: {module}"
            if rule.startswith("pipelines"):
                assert not module.startswith("rewards."), f"{name(path)}: only plugins.find reaches a kind of reward"
            if rule == "pipelines/stages":
                assert not module.startswith("pipelines.stages."), f"{name(path)}: stages never import stages"
            elif rule.startswith("pipelines"):
                assert not module.startswith("trimtab.pipelines.stages"), (
                    f"{name(path)}: only plugins.find reaches the stages"
                )


@pytest.mark.parametrize("path", FILES, ids=name)
def test_only_tracking_knows_wandb_and_only_seams_knows_private_members(path):
    modules = imports(path)
    if path.name != "tracking.py":
        assert not any(module.split(".")[0] == "wandb" for module in modules)
    if path.name != "seams.py":
        private = ("trl.trainer", "trl.experimental", "trl.models", "transformers.integrations", "accelerate.state")
        assert not [module for module in modules if module.startswith(private)]


def test_algorithms_need_torch_at_most():
    for path in (ROOT / "pipelines" / "algorithms").glob("*.py"):
        outside = {module.split(".")[0] for module in imports(path)} & (HEAVY | {"trl"})
        assert outside <= {"torch"}, name(path)


def test_what_a_plan_needs_imports_nothing_heavy():
    for path in [ROOT / "pipelines" / file for file in LIGHT] + sorted((ROOT / "pipelines" / "stages").glob("*.py")):
        heavy = {module.split(".")[0] for module in imports(path, top_only=True)} & HEAVY
        assert not heavy, f"{name(path)} imports {heavy} at its top"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_are_small_and_speaking(path):
    assert path.read_text().count("\n") <= 300, "split it by idea"
    assert path.stem not in {"utils", "util", "helpers", "common", "base", "manager", "misc"}
    assert ast.get_docstring(ast.parse(path.read_text())), "say what it is in a module docstring"
