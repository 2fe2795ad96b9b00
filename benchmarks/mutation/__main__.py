"""How many small wrong changes of the mathematics and of the stages that decide do the fast tests notice?

    python benchmarks/mutation                    # make mutate: what is not decided yet, an hour at most
    python benchmarks/mutation minutes=10 jobs=1  # goes on where it was
    python benchmarks/mutation again=survived     # the survivors once more, after a test was written
    python benchmarks/mutation again=survived tests=rewards/test_code.py,data   # by those tests alone
    python benchmarks/mutation kept               # the mutants that are kept for the tests, alone
    python benchmarks/mutation page               # docs/results/mutants.md once more, after explained.json has changed

Of every file so many mutants (`each`) are chosen by their hashes. Each runs the fast tests that run its line, in a
fork, quick ones first, until one fails; which test runs which line is measured first (coverage.py). Everything is kept
in runs/mutation/, and in the end in results.json and on the page. Some of the tests can kill, and decide nothing else:
what they do not kill stays as it was. Survivors that no test could notice are explained in
explained.json. What has killed a mutant is run once more without it.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import covering
import forks
import mutants
import page
import trials
from mutants import ROOT, Mutant

HERE = Path(__file__).resolve().parent
FOLDER = ROOT / "runs" / "mutation"
RESULTS = FOLDER / "results.jsonl"
DECIDING = ("apo", "prefer", "constrained", "curate", "mix", "pair", "extrapolate", "monitor", "compare")
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for path in [
        *(ROOT / "pipelines" / "algorithms").rglob("*.py"),
        *(ROOT / "pipelines" / "trainers").glob("*.py"),
        *(ROOT / "pipelines" / "stages" / f"{name}.py" for name in DECIDING),
        *(ROOT / "rewards").glob("*.py"),
        ROOT / "pipelines" / "planning" / "identity.py",
    ]
)
ROOMS = (
    "algorithms",
    "data",
    "planning",
    "recording",
    "rewards",
    "sampling",
    "scoring",
    "stages",
    "trainers",
    "training",
)
TESTS = sorted(path for room in ROOMS for path in (ROOT / "tests" / room).glob("test_*.py"))
OUTCOMES = {0: "survived", 1: "killed", 2: "killed", 3: "killed", 4: "killed"}  # by pytest's exit code
OPTIONS = {"each": "3", "jobs": "2", "minutes": "60", "again": "", "tests": ""}


@dataclass(frozen=True)
class Trial:
    """A mutant with the tests that run its line, quick ones first."""

    mutant: Mutant
    tests: list[str]
    seconds: float


def main(words: list[str]) -> int:
    if words == ["kept"]:
        return kept()
    if words == ["page"]:
        page.PAGE.write_text(page.text())
        return 0
    options = OPTIONS | dict(word.split("=", 1) for word in words)
    deadline, jobs = time.monotonic() + 60 * float(options["minutes"]), int(options["jobs"])
    named = tuple(str(ROOT / "tests" / name) for name in options["tests"].split(",") if name)
    tests = [path for path in TESTS if str(path).startswith(named)] if named else TESTS
    forks.prepare()
    covered = covering.measure(tests, SOURCES, FOLDER / "lines", jobs)
    known = results()
    chosen = mutants.chosen(SOURCES, int(options["each"]))
    pending = [m for m in chosen if m.key not in known or known[m.key]["outcome"] in options["again"].split(",")]
    print(f"{len(chosen)} mutants of {len(SOURCES)} files, {len(pending)} of them to decide", flush=True)
    untested = [m for m in pending if not covered.by(m)]
    for mutant in untested if not named else ():
        keep(mutant, "not run", "", 0.0, 0)
    ready = [trial(mutant, covered) for mutant in pending if mutant not in untested]
    in_time = (each for each in ready if time.monotonic() < deadline)
    decide(in_time, jobs, killed_alone=bool(named))
    check_killers(chosen, jobs)
    page.store(results(), chosen, int(options["each"]))
    say(chosen)
    return 0


def kept() -> int:
    """The mutants of kept.json on the tests that are there for them; 1 where one lives."""
    forks.prepare(["torch", "datasets", "scipy.stats", "pytest"])
    trouble = 0
    tasks = []
    for row in json.loads((HERE / "kept.json").read_text()):
        whole, words = (ROOT / row["file"]).read_bytes(), row["before"].encode()
        if whole.count(words) != 1:
            print(f"{row['file']} has {row['before']!r} {whole.count(words)} times: mend kept.json")
            trouble = 1
            continue
        start = whole.index(words)
        change = (row["before"], row["after"], start, start + len(words), row["after"])
        tasks.append((Mutant(row["file"], "", 0, 0, True, *change), row["tests"]))

    def run(task: tuple[Mutant, str]) -> int:
        return trials.of_file(*task)

    for (mutant, tests), code, _, _ in forks.each(tasks, run, 2, FOLDER / "log", lambda _: 120):
        says = "killed" if code == 1 else f"LIVES (exit code {code})"
        print(f"{says}: {mutant.file}: {mutant.before}  ->  {mutant.after} ({tests})", flush=True)
        trouble |= code != 1
    return trouble


def trial(mutant: Mutant, covered: covering.Covered) -> Trial:
    """Tests of the mathematics first, then by the seconds of their files."""
    tests = covered.by(mutant)
    files: dict[str, float] = {}
    for name in tests:
        file = name.partition("::")[0]
        files[file] = files.get(file, 0.0) + covered.seconds[name]
    ordered = sorted(tests, key=lambda name: (files[name.partition("::")[0]], name.partition("::")[0]))
    return Trial(mutant, ordered, sum(files.values()))


def decide(waiting: Iterable[Trial], jobs: int, *, killed_alone: bool = False) -> None:
    """Tries mutants and keeps what came of them; with `killed_alone`, of those that a test has killed."""

    def limit(trial: Trial) -> float:
        return 60 + 3 * trial.seconds

    def run(trial: Trial) -> int:
        return trials.run(trial.mutant, trial.tests, "-x")

    for trial, code, seconds, words in forks.each(waiting, run, jobs, FOLDER / "log", limit):
        killer = trials.KILLED.search(words)
        outcome = "timed out" if code < 0 else OUTCOMES.get(code, "no verdict")
        if outcome == "killed" or not killed_alone:
            keep(trial.mutant, outcome, killer[1] if killer else "", seconds, len(trial.tests))


def check_killers(chosen: Sequence[Mutant], jobs: int) -> None:
    """Takes back what a test has killed that fails by itself, too: run once more where nothing is changed.

    What results.json has was looked at when it was written.
    """
    known = results()
    rows = [known[mutant.key] for mutant in chosen if known.get(mutant.key, {}).get("outcome") == "killed"]
    rows = [row for row in rows if "seconds" in row]
    by_file: dict[str, set[str]] = {}
    for row in rows:
        if row["by"]:
            by_file.setdefault(row["by"].partition("::")[0], set()).add(row["by"])
    failing: set[str] = set()

    def run(task: tuple[str, set[str]]) -> int:
        return trials.run(None, sorted(task[1]), "--maxfail=1000")

    for _, _, _, words in forks.each(list(by_file.items()), run, jobs, FOLDER / "log", lambda task: 600):
        failing |= set(trials.KILLED.findall(words))
    for mutant in chosen:
        row = known.get(mutant.key, {})
        if row.get("by") in failing and row["outcome"] == "killed" and "seconds" in row:
            keep(mutant, "no verdict", row["by"], row["seconds"], row["tests"])


def keep(mutant: Mutant, outcome: str, killer: str, seconds: float, tests: int) -> None:
    row = {"key": mutant.key, "outcome": outcome, "by": killer, "seconds": round(seconds, 1), "tests": tests}
    with RESULTS.open("a") as file:
        file.write(json.dumps(row | asdict(mutant)) + "\n")
    print(f"{outcome:10} {mutant.key} {mutant.file}:{mutant.line} {mutant.before}  ->  {mutant.after}", flush=True)


def results() -> dict[str, dict]:
    """The last outcome of every mutant, by its key; in a clone that has run none, those that results.json has."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    stored = json.loads(page.KEPT.read_text())["mutants"] if page.KEPT.exists() else []
    return {row["key"]: row for row in [*stored, *map(json.loads, lines)]}


def say(chosen: Sequence[Mutant]) -> None:
    known = results()
    counts = Counter(known[mutant.key]["outcome"] for mutant in chosen if mutant.key in known)
    decided = counts["killed"] + counts["survived"]
    print(f"{dict(counts)}: {counts['killed']} of {decided} decided are killed", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
