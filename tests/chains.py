"""A part of a recipe that is killed and started again until it ends by itself, and whether it ends as undisturbed."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import yaml
from kills import (
    AIMS,
    EXPECTED,
    PARTIAL,
    Blow,
    await_end,
    await_moment,
    is_locked,
    marked,
    orphans,
    seen,
    start,
    strike,
)
from launches import Warm

from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.planning.store import STEPS

TIMES = re.compile(r"^time$|seconds|runtime|per_second|_time|time/|memory|resumed_from")
# what a report says of when and how long, of measured memory, and how far a forecast was from it
MEASURED = re.compile(
    r"<time>.*?</time>|\d+ h \d+ min|\d+ min \d+ s|[\d.]+ (?:s|min|h|[KMG]iB)\b|\d{4}-\d\d-\d\dT[\d:+]+|[+−±]?\d+%"
)


def shortened(recipe: Path, last: str, folder: Path) -> Path:
    """A file with the recipe's stages down to `last`: its steps are the whole recipe's."""
    document = yaml.safe_load(recipe.read_text())
    names = list(document["stages"])
    document["stages"] = {name: document["stages"][name] for name in names[: names.index(last) + 1]}
    path = folder / f"to-{last}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


class Chain:
    """The last stages of a recipe, from `first` on, hit again and again in one of the modes of tests/kills.py."""

    def __init__(self, warm: Warm, mode: str, recipe: Path, first: str, folder: Path, logs: Path):
        self.warm, self.mode, self.recipe, self.logs = warm, mode, recipe, logs
        self.overrides = [f"output_dir={folder}"]
        plan = Recipe.load(str(recipe), self.overrides, Ranks(every=2 if mode == "ranks" else 1))
        self.run, self.store = plan.run, plan.run.parent / STEPS
        stages = list(dict.fromkeys(step.stage for step in plan.steps))
        kept = stages[stages.index(first) :]
        self.above = [step for step in plan.steps if step.stage not in kept]
        self.steps = [step for step in plan.steps if step.stage in kept]

    def begin(self, reference: Path) -> None:
        """Makes a store that has only the steps above, which are the reference's."""
        shutil.rmtree(self.run.parent, ignore_errors=True)
        self.store.mkdir(parents=True)
        for step in self.above:
            shutil.copytree(reference / step.dir.name, step.dir)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.warm.begin()
        self.before = marked()
        self.dates = {step.name: _date(step) for step in self.above}

    def kills(self, blows: Iterable[Blow], rng: Random, *, real: float = 0.0) -> Iterator[dict]:
        """What became of each blow, until there are no more or the chain has ended.

        `real` is the share of launches that are no forks.
        """
        for number, blow in enumerate(blows):
            is_real = rng.random() < real
            unfinished = seen(self.store, PARTIAL)
            log = self.logs / f"{number}.log"
            process = start(self.warm, self.mode, self.recipe, self.overrides, log, real=is_real)
            in_time = await_moment(process, self.store, blow, unfinished)
            kind = self._at_work()
            if in_time:
                strike(process, blow, rng)
            code, seconds = await_end(process)
            finished = all(step.done for step in self.steps)
            self.dates |= {step.name: _date(step) for step in self.steps if not self.dates.get(step.name)}
            if in_time or not finished:
                expected = in_time and code in EXPECTED[blow.signal][self.mode]
                yield {
                    "signal": blow.signal if in_time else "none",
                    "aim": blow.aim or "any moment",
                    "early": blow.early,
                    "real": is_real,
                    "at": kind,
                    "code": code,
                    "expected": expected or (code == 0 and finished),
                    "seconds": round(seconds, 2),
                    "orphans": len(orphans(self.before)),
                    "locked": is_locked(self.run),
                    "log": str(log),
                }
            if not in_time or finished:
                return

    def end(self) -> int | None:
        """The exit code of a launch that nobody disturbs."""
        process = start(self.warm, self.mode, self.recipe, self.overrides, self.logs / "last.log", real=False)
        return await_end(process, 600)[0]

    def _at_work(self) -> str:
        """The kind of the step that is being made."""
        for step in self.steps:
            if (step.dir / "output.partial").exists() and not step.done:
                return step.kind
        return "between steps"

    def differences(self, reference: Path) -> tuple[int, list[str]]:
        """How many things were compared, and those that are not the reference's."""
        names = [step.dir.name for step in self.steps]
        ours, theirs = content(self.store, names), content(reference, names)
        different = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
        again = {
            f"{step.name}, which was made twice"
            for step in [*self.above, *self.steps]
            if self.dates.get(step.name) not in (None, _date(step))
        }
        return len(theirs), sorted(different | again)


def _date(step) -> int | None:
    """When a step was finished; None while it is not."""
    return (step.dir / "done.json").stat().st_mtime_ns if step.done else None


def content(run: Path, steps: list[str]) -> dict[str, str]:
    """Hashes of every file of the steps' artifacts, and of their metrics, both without what tells of times."""
    hashes = {}
    for step in steps:
        for path in sorted(path for path in (run / step / "output").rglob("*") if path.is_file()):
            data = path.read_bytes()
            if path.name == "report.html":
                data = MEASURED.sub("", data.decode()).encode()
            hashes[str(path.relative_to(run))] = hashlib.sha256(data).hexdigest()
        text = json.dumps(record(run / step), sort_keys=True)
        hashes[f"{step}/metrics"] = hashlib.sha256(text.encode()).hexdigest()
    return hashes


def record(folder: Path) -> list[dict]:
    """What a finished step has logged, and its metrics, but for times."""
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    done = json.loads((folder / "done.json").read_text())
    rows = [*map(json.loads, lines), done["metrics"]]
    return [{key: value for key, value in row.items() if not TIMES.search(key)} for row in rows]


def blows(rng: Random, mode: str, seconds: float, count: int) -> Iterator[Blow]:
    """Blows for work of so many seconds: half are aimed, and one in ten comes while the launch imports and plans."""
    signals = [name for name, modes in EXPECTED.items() if mode in modes]
    for _ in range(count):
        name, share = rng.choice(signals), seconds / (count + 1)
        if rng.random() < 0.1:
            yield Blow(name, rng.uniform(0, 2), early=True)
        elif rng.random() < 0.5:
            yield Blow(name, rng.uniform(0, 2 * share))
        else:
            yield Blow(name, rng.uniform(0, share), rng.choice(list(AIMS)), patience=share)
