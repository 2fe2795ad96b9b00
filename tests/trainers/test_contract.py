"""The contract with other packages is whole: nothing private of theirs is used that it does not list."""

import ast
import importlib
import inspect
import re
from itertools import chain
from pathlib import Path

import pytest
from conftest import ROOT
from upstream_watch import find

from trimtab.pipelines.trainers.seams.contract import CONTRACT

PACKAGES = ("trl", "transformers", "accelerate", "peft", "deepspeed", "vllm")
PUBLIC_MODULES = {*PACKAGES, "accelerate.utils", "transformers.utils", "deepspeed.utils", "trl.rewards"}
# what the documentation of transformers.Trainer and trl's guide to customising name
DOCUMENTED = {"model", "args", "state", "accelerator", "processing_class", "add_callback", "__init__"}
FILES = sorted(path for folder in ("pipelines", "rewards", "scripts") for path in (ROOT / folder).rglob("*.py"))
TRAINERS = sorted((ROOT / "pipelines" / "trainers").glob("[a-z]*.py"))
LISTED = {(file, entry.member) for entry in CONTRACT for file in entry.files}
MEMBERS = {entry.member for entry in CONTRACT}
OWNERS = {entry.owner for entry in CONTRACT}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_private(word: str) -> bool:
    return word.startswith("_") and not word.endswith("__")


def is_self(node: ast.expr) -> bool:
    is_super = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    return is_super or (isinstance(node, ast.Name) and node.id == "self")


def definitions(tree: ast.AST) -> set[str]:
    """Names that a file gives to functions, classes, variables and members of its own classes."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


TREES = {path: ast.parse(path.read_text()) for path in FILES}
OURS = set().union(*map(definitions, TREES.values())) - MEMBERS


def is_of_standard_library(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("os", "sys")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_private_members_and_keywords_are_ours_or_listed(path):
    used = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Attribute) and not is_of_standard_library(node):
            used.add(node.attr)
        elif isinstance(node, ast.keyword):
            used.add(node.arg or "")
    strangers = set(filter(is_private, used)) - OURS - definitions(TREES[path])
    assert strangers <= {member for file, member in LISTED if file == name(path)}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_private_modules_are_listed(path):
    for node in ast.walk(TREES[path]):
        modules = []
        if isinstance(node, ast.Import):
            modules = [(alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [(node.module, f"{node.module}.{alias.name}") for alias in node.names]
        for module, target in modules:
            if module.partition(".")[0] not in PACKAGES or module in PUBLIC_MODULES:
                continue
            member = target.rpartition(".")[2]
            assert target in OWNERS or (name(path), member) in LISTED, f"{target} is private: list it in the contract"


def used_of_self(cls: type) -> set[str]:
    """The members of its own that a class uses or gives."""
    tree = ast.parse(inspect.getsource(cls))
    of_self = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_self(node.value)}
    return of_self | (vars(cls).keys() & definitions(tree))


def descendants(cls: type) -> list[type]:
    """The classes that derive from a class, however far."""
    nearest = cls.__subclasses__()
    return [*nearest, *chain.from_iterable(map(descendants, nearest))]


def trainers_of(path: Path) -> list[type]:
    """The classes of a file that derive from transformers.Trainer."""
    module = importlib.import_module(f"trimtab.pipelines.trainers.{path.stem}")
    classes = [cls for cls in vars(module).values() if inspect.isclass(cls) and cls.__module__ == module.__name__]
    return [cls for cls in classes if issubclass(cls, find("transformers.Trainer"))]


@pytest.mark.parametrize("path", TRAINERS, ids=name)
def test_what_our_trainers_use_of_theirs_is_listed(path):
    """Also what has no underscore, and a name of ours that theirs has too: it would be overridden unawares."""
    listed = {member for file, member in LISTED if file == name(path)}
    for trainer in TRAINERS:
        importlib.import_module(
            f"trimtab.pipelines.trainers.{trainer.stem}"
        )  # also what mixes in a class of this file
    for cls in trainers_of(path):
        theirs = set()
        for mixed in [cls, *descendants(cls)]:
            theirs |= {base for base in mixed.__mro__ if base.__module__.startswith(PACKAGES)}
        source = "".join(map(inspect.getsource, sorted(theirs, key=str)))
        words = re.findall(r"self\.(\w+)|def (\w+)\(", source)
        shared = used_of_self(cls) & set(chain.from_iterable(words))
        assert shared - DOCUMENTED <= listed, cls.__name__


@pytest.mark.parametrize("entry", CONTRACT, ids=str)
def test_what_is_listed_is_used(entry):
    word = entry.member.removesuffix("-1").removeprefix("ACCELERATE_USE_")
    for file in entry.files:
        assert word in (ROOT / file).read_text(), f"{file} no longer uses it"
