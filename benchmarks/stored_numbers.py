"""Tables and pictures of documentation pages, made from what benchmarks have stored: written, or held against it.

    python benchmarks/stored_numbers.py            # make docs-numbers: writes the tables of all pages
    python benchmarks/stored_numbers.py --check    # writes nothing; 1 where a page or what is stored is old

A benchmark hands its tables to `show`, which prints them and, where the command has `save=yes`, writes one file in
benchmarks/artifacts/: the command, the commit, the machine, the day and the seeds, tables of values, one for each
seed, world or problem, and what they come from: the fingerprints of a recipe's steps, or the code of the program and
of the mathematics that it has imported. A file is old when those are no longer what they were: run its command again.
A page has a place for each table, and for the facts:

    <!-- numbers: kl-of-answers policies -->
    <!-- end of numbers -->

A table of curves becomes docs/figures/NAME-TITLE.svg (pictures.py). The words of a page with tables are held against
them, too: a number with an error stands in a table, to the digit; of pages outside of docs/results/, and of its
README.md, in a table of some study. A section that begins with `<!-- typed -->` has older numbers that were typed.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import pictures

from trimtab.pipelines.algorithms.statistics import mean_stderr

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "artifacts"
PLACE = re.compile(r"(<!-- numbers: ([\w-]+) ([\w-]+) -->\n).*?(<!-- end of numbers -->)", re.DOTALL)
FACTS = ("date", "commit", "seeds", "machine", "command")
SOURCES = ("benchmarks", "pipelines/algorithms", "pipelines/trainers")
SHOWING = ("benchmarks/stored_numbers.py", "benchmarks/pictures.py")  # how numbers are shown, not what they are
LISTED = 200
WITH_ERROR = re.compile(r"\d[\d.,]* ± \d+(?:\.\d+)?")
Tables = Mapping[str, Sequence[Mapping[str, Any]]]


def show(name: str, tables: Tables, *, seeds: str, recipe: tuple[str, Sequence[str]] | None = None) -> None:
    """Prints tables, and stores them where the command has `save=yes`.

    A table is a list of rows by column, whose values are words, or numbers to be averaged. `recipe` is that whose
    steps the numbers come from, with its overrides; without one, or where `inputs` are files that not every clone has,
    they come from the program and what it has imported.
    """
    for title, rows in tables.items():
        print(f"\n{title}\n\n{table({'tables': {title: rows}}, title)}", flush=True)
    if recipe and any(word.startswith("inputs.") for word in recipe[1]):
        recipe = None
    if "save=yes" in sys.argv:
        store(name, tables, seeds=seeds, code=[] if recipe else imported(), recipe=recipe)


def imported() -> list[str]:
    """The program and the mathematics that it has imported, from the repository's root."""
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    paths = [Path(file).resolve() for file in modules if file]
    files = sorted({str(path.relative_to(ROOT)) for path in paths if path.is_relative_to(ROOT)})
    return [file for file in files if file.startswith(SOURCES) and file not in SHOWING]


def store(
    name: str,
    tables: Tables,
    *,
    seeds: str,
    code: Sequence[str] = (),
    recipe: tuple[str, Sequence[str]] | None = None,
) -> Path:
    """Writes an artifact of `show`; `code` are files, from the repository's root, that the numbers come from."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    words = [word for word in sys.argv[1:] if word != "save=yes"]
    planned = recipe and (within(recipe[0]), recipe[1])
    artifact = {
        "date": date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "seeds": seeds,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "command": shlex.join(["python", within(sys.argv[0]), *words]),
        "code": {file: digest(file) for file in code},
        "recipe": planned and {"words": [planned[0], *planned[1]], "steps": steps(*planned)},
        "tables": {title: [_rounded(row) for row in rows] for title, rows in tables.items()},
    }
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(artifact, indent=1) + "\n")
    return path


def within(path: str) -> str:
    """A file from the repository's root, the same on every machine."""
    return str(Path(path).resolve().relative_to(ROOT))


def digest(file: str) -> str:
    """A hash of a Python file's code, of which comments and docstrings are no part; "" where it is gone."""
    if not (ROOT / file).exists():
        return ""
    tree = ast.parse((ROOT / file).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def steps(path: str, overrides: Sequence[str]) -> dict[str, str]:
    """The fingerprint of every step of a recipe."""
    from trimtab.pipelines.planning.recipe import Recipe

    return {step.name: step.fingerprint for step in Recipe.load(str(ROOT / path), list(overrides)).steps}


def old(artifact: Mapping[str, Any]) -> list[str]:
    """What is no longer as it was when the numbers were measured."""
    changed = [file for file, hashed in artifact["code"].items() if digest(file) != hashed]
    if artifact["recipe"] is not None:
        path, *overrides = artifact["recipe"]["words"]
        now = steps(path, overrides)
        before = artifact["recipe"]["steps"]
        changed += [f"{path}: {name}" for name in {**before, **now} if before.get(name) != now.get(name)]
    return changed


def table(artifact: Mapping[str, Any], title: str) -> str:
    """A table in Markdown; `facts` is that of where the numbers come from."""
    if title == "facts":
        lines = ["| | |", "| --- | --- |"]
        shown = {**artifact, "command": f"`{artifact['command']} save=yes`"}
        return "\n".join([*lines, *(f"| {name} | {shown[name]} |" for name in FACTS)]) + "\n"
    rows = artifact["tables"][title]
    lines = ["| " + " | ".join(rows[0]) + " |", "| --- " * len(rows[0]) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(cell, row.values())) + " |" for row in rows)]) + "\n"


def cell(value: Any) -> str:
    """A word or a number as it is; several numbers as their mean with its standard error, of one or two digits."""
    if not isinstance(value, list | dict):
        return f"{value:.2g}" if isinstance(value, float) else str(value)
    mean, error = (value["mean"], value["error"]) if isinstance(value, dict) else mean_stderr(value)
    if len(value) == 1:
        return f"{mean:.3g}"
    if not error > max(1e-12, 1e-9 * abs(mean)):
        return f"{mean:.3g}" if abs(mean) > 1e-12 else "0"
    digits = max(0, 1 - math.floor(math.log10(error)) - (error >= 2 * 10 ** math.floor(math.log10(error))))
    if digits > 6:
        return f"{mean:.1g} ± {error:.1g}"
    return f"{round(mean, digits) + 0.0:.{digits}f} ± {error:.{digits}f}"  # never -0.00


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Six digits of every number, which is more than a page shows, and of more than LISTED numbers mean and error."""

    def short(value: Any) -> Any:
        if isinstance(value, list) and len(value) > LISTED:
            mean, error = mean_stderr(value)
            return {"mean": short(mean), "error": short(error), "of": len(value)}
        if isinstance(value, list):
            return [short(number) for number in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    return {name: short(value) for name, value in row.items()}


def written(text: str) -> str:
    """A page's text with the tables that are stored."""

    def fill(place: re.Match[str]) -> str:
        artifact = json.loads((FOLDER / f"{place[2]}.json").read_text())
        return place[1] + table(artifact, place[3]) + place[4]

    return PLACE.sub(fill, text)


def unsupported(page: Path, text: str) -> list[str]:
    """Numbers with errors in a page's words that no table has: its own, or, where it tells of studies, one of theirs.

    A study's page without tables that are stored was typed, and is not looked at.
    """
    studies = ROOT / "docs" / "results"
    if page.parent == studies and page.name != "README.md":
        tables = [place[0] for place in PLACE.finditer(text)]
        if not tables:
            return []
    else:
        tables = re.findall(r"^\|.*$", "\n".join(path.read_text() for path in studies.glob("*.md")), re.MULTILINE)
        tables = [line for line in tables if "](" not in line]  # which are of README.md
    shown = set(WITH_ERROR.findall("\n".join(tables)))
    sections = re.split(r"^(?=#)", PLACE.sub("", text), flags=re.MULTILINE)
    words = "".join(section for section in sections if "<!-- typed -->" not in section)
    return [number for number in WITH_ERROR.findall(words) if number not in shown]


def without_command(page: Path, text: str) -> bool:
    """Whether a study's page has numbers with errors and no command that they come from."""
    is_study = page.parent == ROOT / "docs" / "results" and page.name != "README.md"
    return is_study and bool(WITH_ERROR.search(text)) and not re.search(r"(python|trimtab|make) [\w/.-]+", text)


def main(words: list[str]) -> int:
    check, trouble = words == ["--check"], 0
    for path in sorted(FOLDER.glob("*.json")):
        artifact = json.loads(path.read_text())
        if changed := old(artifact):
            print(f"{path.relative_to(ROOT)} is older than {', '.join(changed)}: {artifact['command']} save=yes")
            trouble = 1
        for title, rows in artifact["tables"].items():
            picture = ROOT / "docs" / "figures" / f"{path.stem}-{title}.svg"
            if not pictures.is_of_curves(rows) or pictures.is_current(rows, picture):
                continue
            if check:
                print(f"{picture.relative_to(ROOT)} is not of the curves that are stored: make docs-numbers")
                trouble = 1
            else:
                pictures.draw(rows, picture)
    pages = sorted((ROOT / "docs").rglob("*.md"))
    for page in pages:
        before = page.read_text()
        after = written(before)
        if before != after and check:
            print(f"{page.relative_to(ROOT)} is not what is stored: make docs-numbers")
            trouble = 1
        elif before != after:
            page.write_text(after)
    for page in pages:  # of which some say what a table of another says
        text = page.read_text()
        for number in unsupported(page, text):
            print(f"{page.relative_to(ROOT)} says {number}, which stands in no table")
            trouble = 1
        if without_command(page, text):
            print(f"{page.relative_to(ROOT)} has numbers and no command that they come from")
            trouble = 1
    return trouble


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
