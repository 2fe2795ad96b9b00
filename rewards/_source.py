"""Code of a user's own: where a word or a path leads, found without running any of it, and its import from its source.

A module is looked for as Python does, in the current folder first. To it belong the modules that it imports, wherever
in the file, when they lie beside it, in the current folder or elsewhere outside of the installed packages. What is
imported is what was read: cached bytecode, which may say something else than the source beside it, is not believed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import accumulate
from pathlib import Path
from types import ModuleType

FILE = re.compile(r"(?P<file>.+\.py)(?::(?P<name>\w+))?")
INSTALLED = {"site-packages", "dist-packages"}  # folders of libraries
OURS = [Path(__file__).resolve().parents[1] / name for name in ("__init__.py", "pipelines", "rewards", "scripts")]
UNREADABLE = (
    SyntaxError,
    ValueError,
    RecursionError,
    MemoryError,
)  # what `ast.parse` raises of a file that is no code


@dataclass(frozen=True)
class Place:
    """Where a name stands: `module` in sys.modules, its `file`, and the files by module that belong to it.

    Those are none of an installed package's, nor of Trimtab's own.
    """

    module: str
    name: str | None
    file: Path
    files: dict[str, Path] = field(default_factory=dict)

    def load(self) -> ModuleType:
        """The module, imported. What the code raises meanwhile comes through as it is."""
        _FINDER.files.update(self.files)
        if _FINDER not in sys.meta_path:
            sys.meta_path.insert(0, _FINDER)
        importlib.invalidate_caches()
        return importlib.import_module(self.module)


def locate(path: str, default: str | None = None) -> Place | None:
    """The place of `file.py:name`, of `file.py` with the default name, or of `my.module.name`; None for none."""
    if matched := FILE.fullmatch(path):
        file = Path(matched["file"]).expanduser().resolve()
        # of the same name in every process, and where pickle and inspect look for it
        module = f"_reward_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
        return _placed(module, matched["name"] or default, {module: file}) if file.is_file() else None
    module, _, name = path.rpartition(".")
    chain = _chain(module, _search()) if module else {}
    return _placed(module, name, chain) if module in chain else None


def first_missing(module: str) -> str:
    """The first of a module and the packages that it is in that is not there."""
    there = _chain(module, _search())
    return next((name for name in accumulate(module.split("."), "{}.{}".format) if name not in there), module)


def is_ours(file: Path) -> bool:
    """Whether a file comes with Trimtab."""
    return any(file.resolve().is_relative_to(place) for place in OURS)


def is_installed(file: Path) -> bool:
    """Whether a file is Trimtab's, of an installed package or of Python's own library."""
    standard = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    libraries = [Path(entry) for entry in sys.path if Path(entry).name in INSTALLED]
    roots = [*standard, *libraries]
    whole = Path(os.path.abspath(file))
    return is_ours(file) or any(
        whole.is_relative_to(root) or whole.resolve().is_relative_to(root.resolve()) for root in roots
    )


def tree(file: Path) -> ast.Module | None:
    """What a source file says; None for one that is no Python."""
    status = file.stat()
    return _tree(file, status.st_mtime_ns, status.st_size)


def module_of(statement: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    """The whole name of the module that a `from ... import` in `module` names."""
    if not statement.level:
        return statement.module or ""
    parts = module.split(".")
    kept = len(parts) - statement.level + (1 if is_package else 0)
    return ".".join([*parts[: max(kept, 0)], *([statement.module] if statement.module else [])])


def file_of(module: str, beside: Path) -> Path | None:
    """The file of a module that is imported by one in the folder `beside`; None for none, or a mere folder."""
    file = _chain(module, [str(beside), *_search()]).get(module)
    return file if file is not None and file.is_file() else None


@functools.lru_cache(maxsize=256)
def _tree(file: Path, changed: int, size: int) -> ast.Module | None:
    try:
        return ast.parse(file.read_bytes())
    except UNREADABLE:
        return None


def _placed(module: str, name: str | None, chain: dict[str, Path]) -> Place | None:
    """The place with what belongs to it; None for a module that is a mere folder."""
    file = chain[module]
    if not file.is_file():
        return None
    return Place(module, name, file, {} if is_installed(file) else _belonging(chain))


def _belonging(chain: dict[str, Path]) -> dict[str, Path]:
    """The files by module of a chain of packages and of what they import, but for installed ones."""
    files: dict[str, Path] = {}
    waiting = dict(chain)
    while waiting:
        module, file = waiting.popitem()
        if module in files or is_installed(file):
            continue
        files[module] = file
        top = file.parents[len(module.split(".")) - (0 if file.name == "__init__.py" else 1)]
        for imported in _imports(module, file):
            waiting |= _chain(imported, [str(top), *_search()])
    return files


def _imports(module: str, file: Path) -> Iterator[str]:
    """The names that a source file imports: modules, and what may be one."""
    read = tree(file) if file.suffix == ".py" else None
    for node in ast.walk(read) if read else ():
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module_of(node, module, is_package=file.name == "__init__.py")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if base)


def _chain(module: str, search: Sequence[str]) -> dict[str, Path]:
    """The file (of a namespace package the folder) of a module and of the packages that it is in, as far as they are.

    Nothing is imported, unlike by importlib.util.find_spec, which runs the packages.
    """
    chain: dict[str, Path] = {}
    folders = list(search)
    for name in accumulate(module.split("."), "{}.{}".format):
        spec = PathFinder.find_spec(name, folders) or (None if chain else _hooked(name))
        place = _file(spec) if spec else None
        if spec is None or place is None:
            break
        chain[name] = place
        folders = list(spec.submodule_search_locations or ())
        if not folders:
            break
    return chain


def _hooked(name: str) -> ModuleSpec | None:
    """What finders beside the path know of a top-level name: Trimtab itself, and editable installations."""
    try:
        return importlib.util.find_spec(name) if name else None
    except ValueError:  # of `__main__`
        return None


def _file(spec: ModuleSpec) -> Path | None:
    if spec.has_location and spec.origin:
        return Path(spec.origin)
    return next(map(Path, spec.submodule_search_locations or ()), None)


def _search() -> list[str]:
    return [str(Path.cwd()), *sys.path]


class _Source(SourceFileLoader):
    """A loader that compiles the source each time, and neither reads nor writes cached bytecode."""

    def get_code(self, fullname: str):
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


@dataclass
class _Finder:
    """Finds the modules that places have named, and no others: a folder of a stranger's is not on the path."""

    files: dict[str, Path] = field(default_factory=dict)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        file = self.files.get(name)
        if file is None:
            return None
        if file.is_dir():
            spec = ModuleSpec(name, None)
            spec.submodule_search_locations = [str(file)]
            return spec
        inside = [str(file.parent)] if file.name == "__init__.py" else None
        loader = _Source(name, str(file)) if file.suffix == ".py" else None
        return importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=inside)


_FINDER = _Finder()
