"""What was decided, as one file, and a page of it."""

from __future__ import annotations

import json
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from mutants import ROOT, Mutant

KEPT = Path(__file__).with_name("results.json")
EXPLAINED = Path(__file__).with_name("explained.json")
PAGE = ROOT / "docs" / "results" / "mutants.md"
OUTCOMES = ("killed", "survived", "timed out", "no verdict", "not run")
HEAD = """# Mutants

How many small wrong changes of the code that decides a result the fast tests notice: a comparison turned round, a
sign, a factor, a bound, a call that is left out. Of every file of `pipelines/algorithms/`, `pipelines/trainers/` and
`rewards/`, of the stages that decide and of `planning/identity.py`, {each} at most are chosen, by their hashes. Each
runs the fast tests that run its line until one fails. What was decided stays so while the line reads as it did.

| | |
| --- | --- |
| date | {date} |
| commit | {commit} |
| machine | {machine} |
| command | `make mutate` |

{score}

*Timed out*: it ran more than three times as long as its tests take, or for ever, and counts as neither. *No
verdict*: the test that failed also fails by itself, alone. *Not run*: no fast test runs the line; slow ones may
(several processes, kills, real trainings).

"""
TOOL = """
## Why a program of our own

[mutmut](https://github.com/boxed/mutmut) 3 (BSD) puts a dispatching wrapper around every function, and kinds here are
told by the signatures and the sources of their functions and classes; it has no choice of a few mutants out of many.
[cosmic-ray](https://github.com/sixty-north/cosmic-ray) 8 (MIT) writes mutants into the working tree and starts a
process with ten seconds of imports for each, with one test command for all. `benchmarks/mutation` forks a process that
has imported the libraries, gives the fork the mutant in the place of the module, and asks
[coverage.py](https://coverage.readthedocs.io) which tests run its line. `benchmarks/mutation/kept.json` has mutants
that once lived; `tests/test_mutation.py` runs them.
"""


def store(rows: Mapping[str, Mapping[str, Any]], chosen: Sequence[Mutant], each: int) -> None:
    """Writes the outcomes of the chosen mutants, and the page."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    facts: dict[str, Any] = {
        "date": date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "machine": machine,
        "each": each,
    }
    decided = [rows[mutant.key] for mutant in chosen if mutant.key in rows]
    facts["undecided"] = len(chosen) - len(decided)
    names = ("key", "outcome", "by", "file", "function", "before", "after")
    outcomes = [{name: row[name] for name in names} for row in decided]
    KEPT.write_text(json.dumps({**facts, "mutants": outcomes}, indent=1) + "\n")
    PAGE.write_text(text())


def text() -> str:
    """The page of what is stored."""
    stored = json.loads(KEPT.read_text())
    explained = json.loads(EXPLAINED.read_text())
    by_room: dict[str, Counter[str]] = {}
    for row in stored["mutants"]:
        by_room.setdefault(_room(row["file"]), Counter())[row["outcome"]] += 1
    total = sum(by_room.values(), Counter())
    killed, survived = total["killed"], total["survived"]
    same = sum(row["outcome"] == "survived" and row["key"] in explained for row in stored["mutants"])
    open_ones = killed + survived - same
    score = (
        f"**{killed} of the {killed + survived} that were decided are killed, {killed / (killed + survived):.1%}; "
        f"without the {same} that live and are explained below, {killed} of {open_ones}, {killed / open_ones:.1%}.**"
    )
    if stored["undecided"]:
        score += f" {stored['undecided']} are not decided yet."
    table = ["| code | mutants | " + " | ".join(OUTCOMES) + " |", "| --- |" + " --- |" * (len(OUTCOMES) + 1)]
    for room, counts in [*sorted(by_room.items()), ("all", total)]:
        numbers = [sum(counts.values()), *(counts[name] for name in OUTCOMES)]
        table.append(f"| {room} | " + " | ".join(map(str, numbers)) + " |")
    living = ["", "## Those that live", "", "| where | as it is | mutant | why |", "| --- | --- | --- | --- |"]
    for row in sorted(stored["mutants"], key=lambda row: row["file"]):
        if row["outcome"] == "survived":
            why = explained.get(row["key"], "open")
            where = f"`{row['file'].rpartition('/')[2]}` {row['function']}"
            living.append(f"| {where} | {_code(row['before'])} | {_code(row['after'])} | {why} |")
    return HEAD.format(**stored, score=score) + "\n".join([*table, *living]) + "\n" + TOOL


def _room(file: str) -> str:
    folder = file.rpartition("/")[0]
    return f"`{folder if folder != 'pipelines/planning' else file}`"


def _code(line: str) -> str:
    return "`" + " ".join(line.split()).replace("|", "\\|") + "`"
