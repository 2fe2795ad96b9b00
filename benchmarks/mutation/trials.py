"""A mutant's trial: the fast tests that run its line, in a fork in which the module is the mutant."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Sequence
from types import CodeType

from mutants import ROOT, Mutant

KILLED = re.compile(r"^KILLED BY (.+)$", re.MULTILINE)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, source: bytes):
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


class _Finder:
    """Finds the mutant where its module is asked for, and nothing else."""

    def __init__(self, mutant: Mutant):
        name = "trimtab." + mutant.file.removesuffix(".py").replace("/", ".")
        self.name, self.mutant = name.removesuffix(".__init__"), mutant

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        file = str(ROOT / self.mutant.file)
        loader = _Loader(name, file, self.mutant.source())
        folders = [str((ROOT / self.mutant.file).parent)] if file.endswith("__init__.py") else None
        return importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=folders)


class _Order:
    """A plugin of pytest that runs the tests in their given order and names the first that fails."""

    def __init__(self, tests: Sequence[str]):
        self.places = {name: place for place, name in enumerate(tests)}

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if item.nodeid in self.places]
        items.sort(key=lambda item: self.places[item.nodeid])

    def pytest_runtest_logreport(self, report):
        if report.failed:
            print(f"\nKILLED BY {report.nodeid}", flush=True)


def run(mutant: Mutant | None, tests: Sequence[str], *words: str) -> int:
    """Those tests on the mutant, or on the code as it is; pytest's exit code: 0 where none fails, 1 where one does."""
    files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
    return _pytest(mutant, files, list(words), [_Order(tests)])


def of_file(mutant: Mutant, file: str) -> int:
    """The fast tests of a whole file in tests/, as `run`."""
    return _pytest(mutant, [f"tests/{file}"], ["-x"], [])


def _pytest(mutant: Mutant | None, files: Sequence[str], words: list[str], plugins: list[object]) -> int:
    import pytest

    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))  # type: ignore[arg-type]
    paths = [str(ROOT / file) for file in files]
    return int(pytest.main([*paths, *words, "-q", "-m", "not slow", "-p", "no:cacheprovider"], plugins=plugins))
