"""Which fast test runs which line, and for how long: a run of every test file under coverage.py, one context a test.

What a fixture of a module runs counts for every test that asks for it. Kept in one file for each test file; a file
whose tests or whose sources have changed is run again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forks
from mutants import ROOT, Mutant

FIXTURE = "fixture "


@dataclass(frozen=True)
class Covered:
    """seconds: of every test, its fixtures included where it is their first; tests: by source file and line."""

    seconds: dict[str, float]
    tests: dict[str, dict[int, list[str]]]

    def by(self, mutant: Mutant) -> list[str]:
        """The tests that run its line; where that runs while the file is imported, those that run any of the file."""
        lines = self.tests.get(mutant.file, {})
        if mutant.at_import:
            return sorted({test for tests in lines.values() for test in tests})
        return lines.get(mutant.line) or lines.get(mutant.statement, [])


def measure(tests: Sequence[Path], sources: Sequence[str], folder: Path, jobs: int) -> Covered:
    """Of those test files and sources; `folder` keeps what is known."""
    folder.mkdir(parents=True, exist_ok=True)
    pending = [test for test in tests if not _is_known(_read(folder, test), test)]

    def run(test: Path) -> int:
        return _run(test, sources, folder / _name(test))

    for test, code, seconds, _ in forks.each(pending, run, jobs, folder / "log", lambda _: 600):
        print(f"    {test.relative_to(ROOT)}: {seconds:.0f} s{'' if code == 0 else f', exit code {code}'}", flush=True)
    seconds, by_line = {}, defaultdict(lambda: defaultdict(list))
    for test in tests:
        known = _read(folder, test)
        seconds |= known.get("seconds", {})
        for file, lines in known.get("tests", {}).items():
            for line, names in lines.items():
                by_line[file][int(line)] += names
    return Covered(seconds, {file: dict(lines) for file, lines in by_line.items()})


def _name(test: Path) -> str:
    return str(test.relative_to(ROOT)).replace("/", "-") + ".json"


def _read(folder: Path, test: Path) -> dict[str, Any]:
    path = folder / _name(test)
    return json.loads(path.read_text()) if path.exists() else {}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""


def _is_known(known: dict[str, Any], test: Path) -> bool:
    """Whether the test's file and the sources that it runs read as they did."""
    hashes = known.get("hashes", {})
    return bool(hashes) and all(_hash(ROOT / file) == hashed for file, hashed in hashes.items())


class Contexts:
    """A plugin of pytest that tells coverage.py which test runs, and takes the time."""

    def __init__(self, measured: Any):
        self.measured, self.context = measured, ""
        self.seconds: dict[str, float] = {}
        self.fixtures: dict[str, set[str]] = {}
        self.failed: set[str] = set()

    def switch(self, context: str) -> str:
        before, self.context = self.context, context
        self.measured.switch_context(context)
        return before

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.add(report.nodeid)

    def pytest_runtest_protocol(self, item):
        self.fixtures[item.nodeid] = set(item.fixturenames)

    def hooks(self) -> Any:
        """The hooks around what others do; pytest is imported where tests are."""
        import pytest

        contexts = self

        class Around:
            @pytest.hookimpl(hookwrapper=True, tryfirst=True)
            def pytest_runtest_protocol(self, item):
                contexts.switch(item.nodeid)
                start = time.process_time()
                yield
                contexts.seconds[item.nodeid] = time.process_time() - start
                contexts.switch("")

            @pytest.hookimpl(hookwrapper=True)
            def pytest_fixture_setup(self, fixturedef):
                if fixturedef.scope == "function":
                    yield
                    return
                before = contexts.switch(FIXTURE + fixturedef.argname)
                yield
                contexts.switch(before)

        return Around()


def _run(test: Path, sources: Sequence[str], out: Path) -> int:
    import coverage
    import pytest

    measured = coverage.Coverage(data_file=None, include=[str(ROOT / source) for source in sources], config_file=False)
    contexts = Contexts(measured)
    measured.start()
    words = [str(test), "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    code = pytest.main(words, plugins=[contexts, contexts.hooks()])
    measured.stop()
    data = measured.get_data()
    tests: dict[str, dict[int, list[str]]] = {}
    passed = [name for name in contexts.seconds if name not in contexts.failed]
    for source in sources:
        lines = data.contexts_by_lineno(str(ROOT / source))
        tests[source] = {}
        for line, names in lines.items():
            fixtures = {name.removeprefix(FIXTURE) for name in names if name.startswith(FIXTURE)}
            running = [n for n in passed if n in names or fixtures & contexts.fixtures[n]]
            if running:
                tests[source][line] = running
    seconds = {name: contexts.seconds[name] for name in passed}
    tests = {source: lines for source, lines in tests.items() if lines}
    hashes = {file: _hash(ROOT / file) for file in [str(test.relative_to(ROOT)), *tests]}
    out.write_text(json.dumps({"hashes": hashes, "seconds": seconds, "tests": tests}))
    return int(code)
