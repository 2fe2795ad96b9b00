"""Self-improvement on word problems, real ones and written ones, for three rounds and over several seeds.

    python benchmarks/word_problems.py base=stories260K train=train.jsonl.gz test=test.jsonl.gz
    python benchmarks/word_problems.py ... seeds=1,2,3 save=yes    # and the page's numbers

`real` are problems of the two files, whose rows have a prompt, a completion with the answer alone, and `answer`.
`written` are this program's own, in the same words: one or two steps with small numbers, solved aloud ("6 + 5 = 11.
11 - 3 = 8. #### 8"). Some are learned with their solutions, others are practised on, and others are held out.

benchmarks/word_problems.yaml is the chain. A row of a table is a policy, with right answers in percent of the held-out
problems, means over seeds with standard errors: of one sample, of the greedy answer, of the vote of 8 samples, of that
which the last reward model likes best, and of any. `told apart` is the share of pairs of a right and a wrong sample of
a problem that this reward model puts in that order, 50 where it knows nothing, and `learned from` the rows that the
round has kept. In `gaps` the two of a difference are paired by seed. What is done stays done, so that a run that was
killed goes on.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import pyarrow.parquet as pq
import stored_numbers

from trimtab.pipelines.planning.recipe import Recipe

RECIPE = Path(__file__).with_suffix(".yaml")
ROWS = {  # of each setting: learned with solutions, practised on (the same ones, of the real problems), held out
    "real": {"problems": 700, "test": 300},
    "written": {"solved": 800, "problems": 600, "test": 300},
}
TOKENS = {"real": 12, "written": 40}  # of a solution
ROUNDS = (1, 2, 3)
POLICIES = ("sft", *(f"{arm}_{number}" for arm in ("judged", "random") for number in ROUNDS))
SHARES = {"one": "one", "greedy": "greedy", "Maj@8": "voted/8", "RM@8": "chosen/8", "pass@8": "passing/8"}
GAPS = (  # of one policy's share and another's
    (("judged_3", "Maj@8"), ("judged_3", "greedy")),
    (("judged_3", "RM@8"), ("judged_3", "Maj@8")),
    (("judged_3", "RM@8"), ("judged_3", "one")),
    (("judged_3", "greedy"), ("sft", "greedy")),
    (("judged_3", "greedy"), ("random_3", "greedy")),
    (("judged_3", "one"), ("sft", "one")),
    (("judged_3", "one"), ("random_3", "one")),
)
LARGEST = 9  # number in a problem
NAMES = ("Lily", "Tim", "Tom", "Ben", "Sam", "Anna", "Mia", "Max")
THINGS = ("apples", "toys", "books", "balls", "cookies", "flowers", "birds", "cars")
OPENINGS = ("{name} had {a} {things} .", "{name} found {a} {things} .", "There were {a} {things} .")
MORE = ("{other} gave {b} more .", "{name} bought {b} more {things} .", "Then {b} more came .")
LESS = ("{name} gave {b} to {other} .", "{name} lost {b} of them .", "Then {b} were taken away .")
QUESTION = "How many {things} are there now ?"

Numbers = Mapping[str, Mapping[str, float]]


def written(chance: Random) -> Iterator[dict[str, Any]]:
    """Problems of one or two steps with their solutions, none of them twice."""
    asked = set()
    while True:
        name, other = chance.sample(NAMES, 2)
        about = {"name": name, "other": other, "things": chance.choice(THINGS)}
        now = chance.randint(2, LARGEST)
        told, steps = [chance.choice(OPENINGS).format(a=now, **about)], []
        for _ in range(chance.choice((1, 2))):
            is_more = now < 3 or chance.random() < 0.5
            b = chance.randint(2, LARGEST if is_more else min(LARGEST, now - 1))
            before, now = now, now + b if is_more else now - b
            told.append(chance.choice(MORE if is_more else LESS).format(b=b, **about))
            steps.append(f"{before} {'+' if is_more else '-'} {b} = {now}.")
        problem = " ".join([*told, QUESTION.format(**about)])
        if problem in asked:
            continue
        asked.add(problem)
        said = {"prompt": ("user", problem), "completion": ("assistant", " ".join([*steps, f"#### {now}"]))}
        messages = {key: [{"role": role, "content": content}] for key, (role, content) in said.items()}
        yield {**messages, "answer": str(now)}


def rows(setting: str, given: Mapping[str, str], seed: int) -> dict[str, list[dict[str, Any]]]:
    """What is learned with solutions, what is practised on, and what is held out."""
    chance, counts = Random(seed), ROWS[setting]
    if setting == "written":
        source = written(chance)
        return {name: [next(source) for _ in range(count)] for name, count in counts.items()}
    train = chance.sample(read(given["train"]), counts["problems"])
    return {"solved": train, "problems": train, "test": chance.sample(read(given["test"]), counts["test"])}


def read(path: str) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
        return [json.loads(line) for line in file]


def measured(words: list[str]) -> dict[str, dict[str, float]]:
    """The numbers of each policy of a run; shares are in percent."""
    program = stored_numbers.ROOT / "scripts" / "train.py"
    subprocess.run([sys.executable, str(program), str(RECIPE), *words], check=True)
    steps = {step.name: step for step in Recipe.load(str(RECIPE), words).steps}
    numbers: dict[str, dict[str, float]] = {}
    for policy in POLICIES:
        best = json.loads((steps[f"evaluate-{policy}-best"].output / "best_of.json").read_text())["metrics"]
        numbers[policy] = {title: 100 * best[f"{key}/mean"] for title, key in SHARES.items()}
        scored = pq.read_table(steps[f"evaluate-{policy}-score"].output / "train.parquet").to_pylist()
        numbers[policy]["told apart"] = 100 * told_apart(scored)
        if policy != "sft":
            done = steps[f"{policy.replace('_', '-')}-keep"].dir / "done.json"
            numbers[policy]["learned from"] = json.loads(done.read_text())["metrics"]["kept"]
    return numbers


def told_apart(scored: list[dict[str, Any]]) -> float:
    """The share of pairs of a right and a wrong sample of a problem of which the right one has the higher quality."""
    groups: dict[int, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for sample in scored:
        groups[sample["prompt_index"]][int(sample["scores"]["right"])].append(sample["scores"]["quality"])
    pairs = [(good > bad) + (good == bad) / 2 for wrong, right in groups.values() for good in right for bad in wrong]
    return sum(pairs) / len(pairs)


def table(runs: list[Numbers]) -> list[dict[str, Any]]:
    titles = runs[0]["judged_1"]
    return [
        {
            "policy": f"`{policy}`",
            **{title: [run[policy][title] for run in runs] if title in runs[0][policy] else "" for title in titles},
        }
        for policy in POLICIES
    ]


def gaps(runs: Mapping[str, list[Numbers]]) -> list[dict[str, Any]]:
    rows = []
    for (policy, share), (other, its_share) in GAPS:
        row: dict[str, Any] = {"ahead": f"`{policy}`, {share}", "of": f"`{other}`, {its_share}"}
        for setting, of_setting in runs.items():
            row[setting] = [run[policy][share] - run[other][its_share] for run in of_setting]
        rows.append(row)
    return rows


def main(words: list[str]) -> None:
    given = dict(word.split("=", 1) for word in words if word != "save=yes")
    seeds = [int(seed) for seed in given.pop("seeds", "1,2,3").split(",")]
    folder = Path(given.pop("folder", "runs/word-problems"))
    folder.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[Numbers]] = {setting: [] for setting in ROWS}
    for seed in seeds:
        for setting in ROWS:
            paths = {"base": Path(given["base"])}
            for name, lines in rows(setting, given, seed).items():
                paths[name] = folder / f"{setting}-{name}-{seed}.jsonl"
                paths[name].write_text("".join(json.dumps(line) + "\n" for line in lines))
            run = ["wandb=false", f"name={setting}-{seed}", f"output_dir={folder}", f"seed={seed}"]
            run += [f"inputs.{name}={path.resolve()}" for name, path in paths.items()]
            runs[setting].append(measured([*run, f"defaults.generate.max_new_tokens={TOKENS[setting]}"]))
    tables = {setting: table(of_setting) for setting, of_setting in runs.items()} | {"gaps": gaps(runs)}
    stored_numbers.show("word-problems", tables, seeds=f"{len(seeds)} ({', '.join(map(str, seeds))})")


if __name__ == "__main__":
    main(sys.argv[1:])
