"""A word in a recipe becomes a class: the word is the name of its file, and there is no registry.

`kind: dpo` is class `Dpo` in `pipelines/stages/dpo.py`, `kind: length` is class `Length` in `rewards/length.py`, and a
dotted word is any importable class or function (`my_team.rewards.politeness`).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.pipelines import ROOT
from trimtab.pipelines.planning.errors import RecipeError, suggest

STAGES = "trimtab.pipelines.stages"
REWARDS = "trimtab.rewards"
LOSSES = "trimtab.pipelines.algorithms.losses"
LAYOUTS = "trimtab.pipelines.data.layouts"


def find(package: str, word: Any, path: Sequence[str] = ()) -> Any:
    """The class or function that `word` names in `package` (STAGES or REWARDS).

    Raises RecipeError, at `path`, when there is none.
    """
    if not isinstance(word, str) or not word:
        raise RecipeError(f"expected a word, got {word!r}", path)
    module, _, name = word.rpartition(".") if "." in word else (f"{package}.{word}", "", _camel(word))
    if "." in word:
        _look_beside_the_recipe(module, path)
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise  # the module exists and misses a package of its own
        known = words(package)
        raise RecipeError(f"unknown kind {word!r}{suggest(word, known)} (known: {', '.join(known)})", path) from None
    except AttributeError:
        module_file = getattr(sys.modules[module], "__file__", None) or module
        raise RecipeError(f"{module_file} has no {name!r}", path) from None


def words(package: str) -> list[str]:
    """Every word that `find` knows in `package`: its files, but for those with a leading underscore."""
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    names = (module.name for module in pkgutil.iter_modules(folders))
    return sorted(name for name in names if not name.startswith("_"))


def source_file(package: str, word: str) -> Path | None:
    """The file with the code that `word` names, without importing it; None where there is no such file."""
    module = word.rpartition(".")[0] if "." in word else f"{package}.{word}"
    try:
        spec = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None  # the check of the block says so, with its place
    file = Path(spec.origin) if spec and spec.origin else None
    return file if file and file.is_file() else None


def word_of(target: Any) -> str:
    """The word by which a recipe names a class of ours, such as "dpo" of `Dpo`."""
    return inspect.getmodule(target).__name__.rpartition(".")[2]  # type: ignore[union-attr]


def _look_beside_the_recipe(module: str, path: Sequence[str]) -> None:
    """Makes the current folder importable, as trl does for reward functions; refuses what would be hidden there."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    top = module.partition(".")[0]
    if (Path.cwd() / f"{top}.py").is_file() and (ROOT / top).is_dir() and Path.cwd() == ROOT:
        raise RecipeError(
            f"{top}.py in this folder is hidden by Trimtab's own {top}/: give the file another name, or start from "
            "another folder",
            path,
        )


def _camel(word: str) -> str:
    return "".join(part.capitalize() for part in word.split("_"))
