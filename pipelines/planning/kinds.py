"""A word in a recipe becomes a class: the word is the name of its file, and there is no registry.

`kind: dpo` is class `Dpo` in `pipelines/stages/dpo.py`, `kind: length` is class `Length` in `rewards/length.py`, and a
dotted word is any importable class or function (`my_team.rewards.politeness`). Code from outside of Trimtab and of the
installed packages is imported when the user of this machine has consented to it, and not before (see trust.py).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from trimtab.pipelines import ROOT
from trimtab.pipelines.planning import outlines, trust
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.rewards import _source

STAGES = "trimtab.pipelines.stages"
REWARDS = "trimtab.rewards"
LOSSES = "trimtab.pipelines.algorithms.losses"
LAYOUTS = "trimtab.pipelines.data.layouts"
OPTIMIZERS = "trimtab.pipelines.algorithms.optimizers"


def find(package: str, word: Any, path: Sequence[str] = ()) -> Any:
    """The class or function that `word` names in `package` (STAGES or REWARDS).

    Raises RecipeError, at `path`, when there is none, and Withheld where it is code that nobody has consented to.
    """
    if not isinstance(word, str) or not word:
        raise RecipeError(f"expected a word, got {word!r}", path)
    if "." in word:
        located = look(package, word, path)
        if not trust.are_given(located.files.values()):
            raise trust.Withheld(f"{located.file} is not trusted: read it, then say --trust, see docs/trust.md", path)
        module, name = located.load(), located.name or ""
    else:
        module, name = _own(package, word, path), _camel(word)
    try:
        return getattr(module, name)
    except AttributeError:
        raise RecipeError(f"{getattr(module, '__file__', None) or module} has no {name!r}", path) from None


def look(package: str, word: str, path: Sequence[str] = ()) -> _source.Place:
    """Where a dotted word leads, without importing it. Raises RecipeError for what is nothing, or no such kind."""
    top = word.partition(".")[0]
    if (Path.cwd() / f"{top}.py").is_file() and (ROOT / top).is_dir() and Path.cwd() == ROOT:
        raise RecipeError(
            f"{top}.py in this folder is hidden by Trimtab's own {top}/: give the file another name, or start from "
            "another folder",
            path,
        )
    located = _source.locate(word) if not word.endswith(".py") else None
    if located is None:
        raise _unknown(package, word, path)
    ancestor = outlines.OPTIMIZER if package == OPTIMIZERS else outlines.OURS
    outlines.check(located, path, reward=package == REWARDS, ancestor=ancestor)
    return located


def is_withheld(package: str, word: Any) -> bool:
    """Whether a word names code from outside of Trimtab that nobody has consented to run."""
    located = _source.locate(word) if isinstance(word, str) and "." in word else None
    return located is not None and not trust.are_given(located.files.values())


def words(package: str) -> list[str]:
    """Every word that `find` knows in `package`: its files, but for those with a leading underscore."""
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    names = (module.name for module in pkgutil.iter_modules(folders))
    return sorted(name for name in names if not name.startswith("_"))


def place(package: str, word: str) -> _source.Place | None:
    """Where the code is that `word` names, without importing it; None where there is none: its check says so."""
    return _source.locate(word if "." in word else f"{package}.{word}.{_camel(word)}")


def source_file(package: str, word: str) -> Path | None:
    """The file with the code that `word` names, without importing it; None where there is no such file."""
    located = place(package, word)
    return located.file.resolve() if located else None


def word_of(target: Any) -> str:
    """The word by which a recipe names a class of ours, such as "dpo" of `Dpo`."""
    return inspect.getmodule(target).__name__.rpartition(".")[2]  # type: ignore[union-attr]


def _own(package: str, word: str, path: Sequence[str]) -> ModuleType:
    """The module of a kind of Trimtab's own."""
    module = f"{package}.{word}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise  # the module exists and misses a package of its own
        raise _unknown(package, word, path) from None


def _unknown(package: str, word: str, path: Sequence[str]) -> RecipeError:
    known = words(package)
    return RecipeError(f"unknown kind {word!r}{suggest(word, known)} (known: {', '.join(known)})", path)


def _camel(word: str) -> str:
    return "".join(part.capitalize() for part in word.split("_"))
