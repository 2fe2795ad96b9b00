"""The programs whose recipes are read. A new one is one new file here, found by its name.

A file has `recognises(source)`, which says whether a source is that program's, and `translate(source)`, which gives
the stages that it becomes.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from trimtab.pipelines.importing.draft import Draft
from trimtab.pipelines.importing.sources import Source
from trimtab.pipelines.planning.errors import RecipeError

LAST = "trl"  # whose keys many others have too


def words() -> list[str]:
    """The programs' names, the one with the most general keys last."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return sorted(names, key=lambda name: (name == LAST, name))


def translate(source: Source) -> tuple[str, list[Draft]]:
    """The program of a source, and its stages. Raises RecipeError for a source of none."""
    for word in words():
        program: ModuleType = importlib.import_module(f"{__name__}.{word}")
        if program.recognises(source):
            return word, program.translate(source)
    keys = ", ".join(source.values)
    raise RecipeError(f"{source.name}: its keys are those of none of {', '.join(words())}: {keys}")
