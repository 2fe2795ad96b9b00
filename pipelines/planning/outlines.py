"""What can be seen of code without running it: whether a name is there, and whether it is what a recipe wants there.

Installed packages need no consent, so what is taken from them must be seen to be a reward, a stage or a layout: a word
such as `subprocess.run` is none, and is refused before it is imported. Of a user's own code the same is said early,
and what cannot be seen (a function that a call has made) is looked at again once it may be imported.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.rewards import _source

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FARTHEST = 20  # imports from file to file on the way to a definition
OURS, OPTIMIZER = "trimtab.", "torch.optim.optimizer.Optimizer"  # what the name of an ancestor begins with
SIGNATURE = "a reward is def f(prompts, completions, **columns), or a class with such a __call__"


@dataclass(frozen=True)
class Takes:
    """The parameters of a function: those that can be given by name, and whether it takes any other."""

    names: tuple[str, ...]
    anything: bool

    def is_rewards(self) -> bool:
        """Whether prompts and completions can be given by name, and completions are named."""
        return "completions" in self.names and ("prompts" in self.names or self.anything)


@dataclass(frozen=True)
class Definition:
    """A definition in a source file, and the module that it is in."""

    node: ast.AST
    module: str
    file: Path


def check(
    place: _source.Place, path: Sequence[str], *, reward: bool, known_by: Collection[str] = (), ancestor: str = OURS
) -> None:
    """Raises RecipeError for a name that is not there, or that is seen to be no reward, or no class of the `ancestor`.

    `known_by` are the parameters of which a function for another library's contract has at least one.
    """
    if place.file.suffix == ".py" and _source.tree(place.file) is None:
        raise RecipeError(f"{place.file} is not readable as Python", path)
    definition = _definition(place.name or "", place.module, place.file)
    seen = _verdict(definition, reward=reward, known_by=known_by, ancestor=ancestor)
    if definition is None and _is_plain(place.file):
        names = [name for statement in _statements(_source.tree(place.file)) for name in _names(statement)]
        seen = f"{place.file} has no {place.name!r}{suggest(place.name or '', names)}"
    elif seen is None and _source.is_installed(place.file):
        seen = f"{place.module}.{place.name} cannot be seen to be what is wanted here: write a function that calls it"
    if seen:
        raise RecipeError(seen, path)


def parameters(word: str) -> tuple[str, ...]:
    """The names of the parameters of the function that a dotted word names, without importing it."""
    place = _source.locate(word)
    definition = _definition(place.name or "", place.module, place.file) if place else None
    return _takes(definition.node).names if definition else ()


def check_reward(target: Any, word: str, path: Sequence[str]) -> None:
    """Raises RecipeError for an object that has not a reward's signature."""
    function = target.__call__ if inspect.isclass(target) else target
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise RecipeError(f"{word} is no reward: {SIGNATURE}", path) from None
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = tuple(parameter.name for parameter in parameters if parameter.kind in named)
    takes = Takes(names, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters))
    if not takes.is_rewards():
        raise RecipeError(_no_reward(word, takes), path)


def _verdict(definition: Definition | None, *, reward: bool, known_by: Collection[str], ancestor: str) -> str | None:
    """What is wrong with a definition, "" for nothing, None where it cannot be seen."""
    if definition is None:
        return None
    where = f"{definition.file}:{getattr(definition.node, 'lineno', 1)}"
    if isinstance(definition.node, FUNCTIONS) and known_by:
        takes = _takes(definition.node)
        wrong = not takes.names or (_source.is_installed(definition.file) and not set(known_by) & set(takes.names))
        return f"{where}: {_no_reward(definition.node.name, takes, ', '.join(known_by))}" if wrong else ""
    if isinstance(definition.node, FUNCTIONS) and reward:
        takes = _takes(definition.node)
        return "" if takes.is_rewards() else f"{where}: {_no_reward(definition.node.name, takes)}"
    if isinstance(definition.node, FUNCTIONS):
        return f"{where}: expected a class, but {definition.node.name!r} is a function"
    if not isinstance(definition.node, ast.ClassDef):
        return None
    if known_by:
        return f"{where}: expected a function, but {definition.node.name!r} is a class"
    lineage, whole = _lineage(definition)
    if not reward:
        is_right = any(f"{one.module}.{getattr(one.node, 'name', '')}".startswith(ancestor) for one in lineage)
        wanted = "class of a kind" if ancestor == OURS else "torch.optim.Optimizer"
        return "" if is_right else f"{where}: {definition.node.name!r} is no {wanted}" if whole else None
    for one in lineage:
        for method in getattr(one.node, "body", []):
            if isinstance(method, FUNCTIONS) and method.name == "__call__":
                takes = _takes(method)
                return "" if takes.is_rewards() else f"{where}: {_no_reward(definition.node.name, takes)}"
    return f"{where}: {definition.node.name!r} is no reward: it has no __call__; {SIGNATURE}" if whole else None


def _no_reward(name: str, takes: Takes, wanted: str = "") -> str:
    given = ", ".join([*takes.names, *(["**"] if takes.anything else [])]) or "nothing by name"
    return f"{name!r} is no reward: it takes {given}; " + (f"it must name one of: {wanted}" if wanted else SIGNATURE)


def _takes(node: Any) -> Takes:
    names = tuple(argument.arg for argument in (*node.args.args, *node.args.kwonlyargs) if argument.arg != "self")
    return Takes(names, node.args.kwarg is not None)


def _definition(name: str, module: str, file: Path, farthest: int = FARTHEST) -> Definition | None:
    """Where a name of a module is defined, through imports from other files; None where that cannot be seen."""
    tree = _source.tree(file) if file.suffix == ".py" else None
    seen = None
    for statement in _statements(tree):
        names = _names(statement)
        if name not in names and names != ["*"]:
            continue
        if not isinstance(statement, ast.ImportFrom):
            seen = Definition(statement, module, file)
            continue
        source = _source.module_of(statement, module, is_package=file.name == "__init__.py")
        imported = _source.file_of(source, file.parent)
        original = {alias.asname or alias.name: alias.name for alias in statement.names}.get(name, name)
        if imported and farthest:
            seen = _definition(original, source, imported, farthest - 1) or seen
    return seen


def _lineage(definition: Definition) -> tuple[list[Definition], bool]:
    """A class and those that it derives from, as far as they can be seen, and whether that is all of them."""
    lineage: list[Definition] = []
    whole, waiting = True, [definition]
    while waiting and len(lineage) < FARTHEST:
        current = waiting.pop()
        lineage.append(current)
        for base in getattr(current.node, "bases", []):
            if isinstance(base, ast.Name) and base.id == "object":
                continue
            parent = _ancestor(base, current)
            if parent is None:
                whole = False
            else:
                waiting.append(parent)
    return lineage, whole


def _ancestor(base: ast.expr, current: Definition) -> Definition | None:
    """The class that a base of a class names; None where it cannot be seen."""
    if isinstance(base, ast.Name):
        return _definition(base.id, current.module, current.file)
    place = _source.locate(ast.unparse(base)) if isinstance(base, ast.Attribute) else None
    return _definition(place.name or "", place.module, place.file) if place else None


def _statements(tree: ast.AST | None) -> Iterator[ast.AST]:
    """The statements at the top of a module, also those inside `if` and `try`."""
    waiting = list(getattr(tree, "body", []))
    while waiting:
        statement = waiting.pop(0)
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            waiting = [child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt)] + waiting
        if isinstance(statement, ast.Try):
            waiting = [line for handler in statement.handlers for line in handler.body] + waiting


def _names(statement: ast.AST) -> list[str]:
    """The names that a statement binds."""
    if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, ast.ImportFrom | ast.Import):
        return [alias.asname or alias.name for alias in statement.names]
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _is_plain(file: Path) -> bool:
    """Whether what a module has can be seen from its source: it takes over no module, and makes no names."""
    names = [name for statement in _statements(_source.tree(file)) for name in _names(statement)]
    return file.suffix == ".py" and not {"*", "__getattr__"} & set(names)
