"""A program and its tests, run where a stranger's program may run, and what came of them.

`run` of a sandbox takes the text of a Python program and returns what that program wrote on its standard output.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HARNESS = Path(__file__).with_name("_harness.py").read_text()
FENCED = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which tests passed; `steps` of the interpreter where they were asked for and the program came to its end."""

    passed: tuple[bool, ...]
    steps: int | None = None

    @property
    def share(self) -> float:
        return sum(self.passed) / len(self.passed)


class NotRun(Exception):
    """The sandbox ended before the program began."""


def program(said: str) -> str:
    """The program in an answer: its first fenced block of Python, or all of it."""
    block = FENCED.search(said)
    return block[1] if block else said


def tried(
    run: Callable[[str], str], program: str, tests: Sequence[str], setup: str = "", *, count: bool = False
) -> Verdict:
    """Runs the program and its tests in order, in one interpreter.

    A test that ends the interpreter, or takes all its time, has failed; the tests behind it are run in another one.
    Raises NotRun, and what `run` raises.
    """
    passed = [False] * len(tests)
    first, steps = 0, None
    while first < len(tests):
        task = {"program": program, "setup": setup, "tests": list(tests[first:]), "count": count}
        lines = _told(run, task)
        for number in _numbers(lines, "passed"):
            passed[first + number] = True
        if ended := _numbers(lines, "ended"):
            steps = ended[0] if first == 0 else None
            break
        begun = _numbers(lines, "begun")
        if not begun:  # the program itself does not come to its end, so no test will
            break
        first += begun[-1] + 1
    return Verdict(passed=tuple(passed), steps=steps if count else None)


def _told(run: Callable[[str], str], task: dict[str, Any]) -> list[list[str]]:
    """What the harness said: words, line by line."""
    word = secrets.token_hex(16)
    output = run(f"{HARNESS}\n\nrun({task | {'word': word}!r})\n")
    lines = [line.split()[1:] for line in output.splitlines() if line.startswith(word + " ")]
    if ["ready"] not in lines:
        raise NotRun("the sandbox ended before the program began")
    return lines


def _numbers(lines: list[list[str]], verdict: str) -> list[int]:
    return [int(line[1]) for line in lines if line[0] == verdict]
