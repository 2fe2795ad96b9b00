"""Small wrong changes of a source file: which there are, and a stable choice of them."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPARISONS = {
    **{ast.Lt: ("<", ("<=", ">")), ast.LtE: ("<=", ("<", ">=")), ast.Gt: (">", (">=", "<"))},
    **{ast.GtE: (">=", (">", "<=")), ast.Eq: ("==", ("!=",)), ast.NotEq: ("!=", ("==",))},
    **{ast.Is: ("is", ("is not",)), ast.IsNot: ("is not", ("is",)), ast.In: ("in", ("not in",))},
}
ARITHMETIC = {
    **{ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.Pow: ("**", "*")},
    **{ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&")},
}
OPPOSITES = {"max": "min", "min": "max", "any": "all", "all": "any", "argmax": "argmin", "argmin": "argmax"}
ASSERTING = ("strict", "indent")  # keywords that check what is right anyway, or lay out a file
SKIPPED = (ast.JoinedStr, ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Mutant:
    """The file's bytes from `start` to `end` replaced by `text`; `before` and `after` are the line or lines of it."""

    file: str
    function: str
    line: int
    statement: int  # the first line of the statement that it is in
    at_import: bool  # whether the line runs when the file is imported, and not when a function is called
    before: str
    after: str
    start: int
    end: int
    text: str

    @property
    def key(self) -> str:
        """Eight digits that stay while the file, the function and the line read as they do."""
        return hashlib.sha256("\n".join((self.file, self.function, self.before, self.after)).encode()).hexdigest()[:8]

    def source(self) -> bytes:
        """The whole file with the change."""
        whole = (ROOT / self.file).read_bytes()
        return whole[: self.start] + self.text.encode() + whole[self.end :]


def of_file(file: str) -> list[Mutant]:
    """All mutants of a Python file, given from the repository's root; of equal ones in a function the first."""
    source = (ROOT / file).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    mutants: dict[str, Mutant] = {}
    for function, statement, at_import, node, (start, end, text) in _edits(ast.parse(source), source, starts):
        first = source.rfind(b"\n", 0, start) + 1
        last = source.find(b"\n", end)
        before = source[first:last].decode().strip()
        after = (source[first:start] + text.encode() + source[end:last]).decode().strip()
        mutant = Mutant(file, function, node.lineno, statement, at_import, before, after, start, end, text)
        mutants.setdefault(mutant.key, mutant)
    return list(mutants.values())


def chosen(files: Sequence[str], each: int) -> list[Mutant]:
    """At most so many of each file, by their keys, so that a change elsewhere leaves the choice as it was."""
    mutants = (mutant for file in files for mutant in sorted(of_file(file), key=lambda mutant: mutant.key)[:each])
    return sorted(mutants, key=lambda mutant: mutant.key)


Edit = tuple[int, int, str]
Place = tuple[str, int, bool, ast.expr | ast.stmt, Edit]


def _edits(tree: ast.Module, source: bytes, starts: list[int]) -> Iterator[Place]:
    def place(line: int, column: int) -> int:
        return starts[line - 1] + column

    def span(node: ast.expr | ast.stmt) -> tuple[int, int]:
        return place(node.lineno, node.col_offset), place(node.end_lineno or 0, node.end_col_offset or 0)

    def between(left: ast.expr, right: ast.expr, word: str) -> tuple[int, int]:
        start = source.index(word.encode(), span(left)[1], span(right)[0])
        return start, start + len(word)

    def of_node(node: ast.AST) -> Iterator[Edit]:
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            word, others = COMPARISONS.get(type(node.ops[0]), ("", ()))
            for other in others:
                yield (*between(node.left, node.comparators[0], word), other)
        elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _is_text(node):
            word, other = ARITHMETIC[type(node.op)]
            yield (*between(node.left, node.right, word), other)
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add | ast.Sub) and not _is_text(node):
            start = source.index(b"=", span(node.target)[1]) - 1
            yield start, start + 1, "-" if isinstance(node.op, ast.Add) else "+"
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
            yield span(node)[0], span(node)[0] + len("-" if isinstance(node.op, ast.USub) else "not "), ""
        elif isinstance(node, ast.BoolOp):
            word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            yield (*between(node.values[0], node.values[1], word), other)
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            changed = not node.value if isinstance(node.value, bool) else node.value * 2 or node.value + 1
            yield (*span(node), repr(changed))
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in OPPOSITES and isinstance(node.ctx, ast.Load):
                yield span(node)[1] - len(name), span(node)[1], OPPOSITES[name]
        elif isinstance(node, ast.If | ast.IfExp) and isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
            yield span(node.test)[0], span(node.test)[0], "not "
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield (*span(node), "pass")

    def walk(node: ast.AST, function: str, statement: int, at_import: bool) -> Iterator[Place]:
        if isinstance(node, SKIPPED) or (isinstance(node, ast.keyword) and node.arg in ASSERTING):
            return
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        statement = node.lineno if isinstance(node, ast.stmt) else statement
        if isinstance(node, ast.expr | ast.stmt):
            for edit in of_node(node):
                yield function, statement, at_import, node, edit
        inside = function
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inside = f"{function}.{node.name}".removeprefix(".")
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            runs_now = at_import and not (isinstance(node, ast.FunctionDef | ast.Lambda) and name == "body")
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, inside, statement, runs_now)

    yield from walk(tree, "", 0, True)


def _is_text(node: ast.BinOp | ast.AugAssign) -> bool:
    """Whether a sum is of strings, as far as it can be seen: its mutant would fail at once."""
    sides = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.value,)
    return any(isinstance(s, ast.JoinedStr) or isinstance(getattr(s, "value", None), str) for s in sides)
