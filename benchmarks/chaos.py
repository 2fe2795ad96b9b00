"""Does a recipe that is killed again and again end with what it would have been? In every way to launch it.

    python benchmarks/chaos.py                                  # 100 kills; about an hour on 2 cores
    python benchmarks/chaos.py kills=30 modes=ranks seed=3
    python benchmarks/chaos.py page=docs/results/chaos.md       # and writes the page

benchmarks/chaos.yaml has every loop, in seconds of work a step. It is run once, undisturbed, by one process and by two
ranks (`reference`). Then its parts (PARTS) are run in turn, each by train.py, by an `accelerate launch` of two ranks
and by run.py: started, hit by a signal at a moment drawn or aimed at, started again by the same command, hit, ...,
until it ends by itself. All files of all artifacts, and all metrics but times, have to be the undisturbed run's; a
part finds those above it done, as the undisturbed run has left them.

Most launches are forks of a process that has imported everything (tests/warm.py): the time goes to the work. The share
`real` are processes that import by themselves.

What happened stands in FOLDER/kills.jsonl, a line for each kill and each chain; the same command goes on from there
until there are `kills`. `folder=runs/chaos`, `minutes=` ends it earlier, `per_chain=6`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from random import Random

sys.path.extend(str(Path(__file__).resolve().parents[1] / name) for name in ("scripts", "tests"))
import _checkout  # noqa: F401
from chains import Chain, blows, shortened
from conftest import ROOT
from launches import Warm

OPTIONS = {"kills": "100", "per_chain": "6", "seed": "0", "modes": "train,ranks,run", "real": "0.1", "minutes": "600",
           "folder": "runs/chaos", "page": ""}  # fmt: skip
RECIPE = ROOT / "benchmarks" / "chaos.yaml"
PARTS = {  # first stage -> last stage
    "world": "helpful",
    "sample": "adapter",
    "apo": "apo",
    "constrained": "buffered",
    "curated": "curated",
    "points": "searched",
    "evaluate": "report",
}
PAGE = """# Killed again and again

{date}, seed {seeds}, a CPU: `{command}`

A recipe with every loop (`benchmarks/chaos.yaml`) is started, hit by a signal, started again by the same command,
and so on, until it ends by itself. {kills} kills in {chains} chains, in {minutes} minutes; {real} of the launches that
were hit were processes of their own, the others forks of one that has imported everything.

{compared} files and records of metrics were compared with those of an undisturbed run: {different} differ. Something
other than the same command was needed {helped} times.

*kill* is SIGKILL to every process at once, as a machine that loses its power; *launcher* and *worker* get it alone.
*term* goes to the process that was started, *int* to its process group, as a terminal does; *term, term* and
*int, int* are a second one while the first is obeyed. *Identical* are kills in chains that ended with every file and
every metric of an undisturbed run, times apart. The longest stop is from the last signal to the end of the launch.

{table}
"""
SAID = ("chain", "mode", "part", "kills", "minutes", "failures")  # of a chain that has ended
SLOWER = {"train": 1.0, "ranks": 1.3, "run": 2.0}  # by about what a part takes longer


def main(words: list[str]) -> int:
    """0 when nothing was found."""
    options = OPTIONS | dict(word.split("=", 1) for word in words)
    unknown = options.keys() - OPTIONS
    if unknown:
        sys.exit(f"error: no option {', '.join(sorted(unknown))}: one of {', '.join(OPTIONS)}")
    folder = Path(options["folder"]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it starts with &
    os.environ |= {"XDG_CACHE_HOME": str(folder / "cache"), "HF_DATASETS_CACHE": str(folder / "datasets")}
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    campaign = Campaign(folder, options)
    campaign.go_on()
    table = tables(campaign.rows)
    print(table)
    if options["page"]:
        write_page(Path(options["page"]), table, campaign.rows, words)
    return int(any(row["failures"] for row in campaign.rows))


class Campaign:
    """Chains, one after another, and what became of them."""

    def __init__(self, folder: Path, options: dict[str, str]):
        self.folder, self.options = folder, options
        self.warm = Warm()
        self.log = folder / "kills.jsonl"
        self.rows = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def go_on(self) -> None:
        """Runs chains until enough kills are counted or the time is over."""
        end = time.monotonic() + 60 * float(self.options["minutes"])
        modes = self.options["modes"].split(",")
        kinds = [(mode, first) for first in PARTS for mode in modes]
        while sum(row["kills"] for row in self.rows) < int(self.options["kills"]) and time.monotonic() < end:
            mode, first = kinds[len(self.rows) % len(kinds)]
            row = self.chain(mode, first, len(self.rows))
            self.rows.append(row)
            with self.log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(*(f"{key} {row[key]}" for key in SAID), flush=True)

    def reference(self, mode: str) -> Path:
        """The undisturbed run of one process or of two ranks, which is made when it is first needed."""
        kept = self.folder / ("two-ranks" if mode == "ranks" else "one-process")
        if not kept.exists():
            whole = Chain(self.warm, "ranks" if mode == "ranks" else "train", RECIPE, "world", self.folder / "now",
                          self.folder / f"{kept.name}-logs")  # fmt: skip
            whole.begin(kept)
            code = whole.end()
            if code != 0:
                sys.exit(f"error: the undisturbed run ended with {code}: {whole.logs}")
            shutil.move(whole.store, kept)
        return kept

    def chain(self, mode: str, first: str, number: int) -> dict:
        """One part, hit and started again until it ends."""
        reference = self.reference(mode)
        started = time.monotonic()
        rng = Random(f"{self.options['seed']} {number}")
        recipe = shortened(RECIPE, PARTS[first], self.folder)
        chain = Chain(self.warm, mode, recipe, first, self.folder / "now", self.folder / f"chain-{number}")
        chain.begin(reference)
        records = [json.loads((reference / step.dir.name / "done.json").read_text()) for step in chain.steps]
        seconds = SLOWER[mode] * sum(record["seconds"] for record in records)
        plan = blows(rng, mode, seconds, int(self.options["per_chain"]))
        hits = list(chain.kills(plan, rng, real=float(self.options["real"])))
        code = chain.end()
        compared, different = chain.differences(reference) if code == 0 else (0, [])
        if different:
            shutil.copytree(chain.store, chain.logs / "run", symlinks=True)
        return {
            "chain": number,
            "seed": self.options["seed"],
            "mode": mode,
            "part": f"{first} to {PARTS[first]}",
            "kills": sum(hit["signal"] != "none" for hit in hits),
            "hits": hits,
            "code": code,
            "compared": compared,
            "different": different,
            "failures": failures(hits, code, different),
            "date": time.strftime("%F"),
            "minutes": round((time.monotonic() - started) / 60, 2),
        }


def failures(hits: list[dict], code: int | None, different: list[str]) -> list[str]:
    """What should not have happened, each in a sentence."""
    sentences = [f"different: {name}" for name in different]
    if code != 0:
        sentences.append(f"the last launch ended with {code}")
    for hit in hits:
        told = f"after {hit['signal']} at {hit['at']} ({hit['log']})"
        if not hit["expected"]:
            sentences.append(f"exit code {hit['code']} {told}")
        if hit["orphans"]:
            sentences.append(f"{hit['orphans']} processes left {told}")
        if hit["locked"]:
            sentences.append(f"the lock is held {told}")
    return sentences


def tables(rows: list[dict]) -> str:
    """Markdown: modes by signals, and what was hit."""
    groups: dict[tuple[str, str], list[tuple[dict, dict]]] = {}
    for row in rows:
        for hit in row["hits"]:
            groups.setdefault((row["mode"], hit["signal"]), []).append((row, hit))
            groups.setdefault(("all", ""), []).append((row, hit))
    lines = ["| launch | hit by | kills | identical | orphans | locks held | other exit codes | longest stop |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for (mode, name), pairs in sorted(groups.items(), key=lambda item: (item[0][0] == "all", item[0])):
        hits = [hit for _, hit in pairs]
        identical = sum(row["code"] == 0 and not row["different"] for row, _ in pairs)
        cells = [mode, name, len(hits), identical, sum(hit["orphans"] for hit in hits),
                 sum(hit["locked"] for hit in hits), sum(not hit["expected"] for hit in hits),
                 f"{max(hit['seconds'] for hit in hits):.1f} s"]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    hits = [hit for row in rows for hit in row["hits"]]
    lines += [
        "",
        _counts("step at work", [hit["at"] for hit in hits]),
        "",
        _counts("aimed at", [hit["aim"] for hit in hits]),
    ]
    return "\n".join(lines)


def _counts(title: str, words: list[str]) -> str:
    counts = sorted(((words.count(word), word) for word in set(words)), reverse=True)
    return "\n".join([f"| {title} | kills |", "| --- | --- |", *(f"| {word} | {count} |" for count, word in counts)])


def write_page(path: Path, table: str, rows: list[dict], words: list[str]) -> None:
    """The study's page, in the form of the others."""
    hits = [hit for row in rows for hit in row["hits"]]
    helped = sum(hit["orphans"] > 0 or hit["locked"] or hit["code"] is None for hit in hits)
    helped += sum(row["code"] != 0 for row in rows)
    numbers = {
        "date": rows[-1]["date"],
        "seeds": ", ".join(sorted({row["seed"] for row in rows})),
        "command": shlex.join(["python", "benchmarks/chaos.py", *words]),
        "kills": sum(row["kills"] for row in rows),
        "chains": len(rows),
        "minutes": round(sum(row["minutes"] for row in rows)),
        "real": sum(hit["real"] for hit in hits),
        "compared": sum(row["compared"] for row in rows),
        "different": sum(len(row["different"]) for row in rows),
        "helped": helped,
        "table": table,
    }
    path.write_text(PAGE.format(**numbers))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
