"""Self-improvement on word problems, real ones and written ones, for three rounds and over several seeds.

    python benchmarks/word_problems.py base=stories260K train=train.jsonl.gz test=test.jsonl.gz
    python benchmarks/word_problems.py ... seeds=1,2,3 save=yes    # and the page's numbers

`real` are problems of the two files, whose rows have a prompt, a completion with the answer alone, and `answer`.
`written` are this program's own, in the same words: one or two steps with small numbers, solved aloud ("6 + 5 = 11.
11 - 3 = 8. #### 8"). Some are learned with their solutions, others are practised on, and others are held out.

benchmarks/word_problems.yaml is the chain. A row of a table is a policy, with right answers in percent of the held-out
problems, means over seeds with standard errors: of one sample, of the greedy answer, of the vote of 8 samples, of that
which the last reward model likes best, of any of the 8 texts by chance, and of one at least. `told apart` is the share
of pairs of a right and a wrong text for a problem that this reward model puts in that order, 50 where it knows
nothing, and `needed` the share at which RM@8 would reach Maj@8 on the same samples, were its scores normal ones, all
as far apart. `learned from` counts the rows that the round has kept. In `gaps` the two of a difference are paired by
seed. What is done stays done, so that a run that was killed goes on.
"""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from random import Random
from statistics import NormalDist
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import numpy as np
import pyarrow.parquet as pq
import stored_numbers

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.rewards import text

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
    (("judged_3", "RM@8"), ("judged_3", "by chance")),
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
        numbers[policy] |= {title: 100 * share for title, share in of_judge(scored, best["voted/8/mean"]).items()}
        if policy != "sft":
            done = steps[f"{policy.replace('_', '-')}-keep"].dir / "done.json"
            numbers[policy]["learned from"] = json.loads(done.read_text())["metrics"]["kept"]
    return numbers


def of_judge(scored: list[dict[str, Any]], voted: float) -> dict[str, float]:
    """What a judge of the different texts for each problem is worth, and what it would have to be worth.

    Samples with one text have one score, so that a judge that knows nothing takes any text, not any sample.
    """
    texts: dict[int, dict[str, tuple[float, float]]] = defaultdict(dict)
    for sample in scored:
        scores = sample["scores"]
        texts[sample["prompt_index"]][text(sample["completion"])] = (scores["quality"], scores["right"])
    right = [[quality for quality, right in of_problem.values() if right] for of_problem in texts.values()]
    wrong = [[quality for quality, right in of_problem.values() if not right] for of_problem in texts.values()]
    gaps = [good - bad for goods, bads in zip(right, wrong, strict=True) for good, bad in product(goods, bads)]
    counts = Counter(zip(map(len, right), map(len, wrong), strict=True))

    def chosen(distance: float) -> float:
        return sum(count * best_is_right(*of_problem, distance) for of_problem, count in counts.items()) / len(texts)

    low, high = 0.0, 8.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if chosen(middle) >= voted else (middle, high)
    return {
        "by chance": chosen(0.0),
        "told apart": sum((gap > 0) + (gap == 0) / 2 for gap in gaps) / len(gaps),
        "needed": NormalDist().cdf(high / math.sqrt(2)),
    }


def best_is_right(right: int, wrong: int, distance: float) -> float:
    """The chance that the highest of normal scores is a right text's, whose mean is higher by `distance`."""
    if not right or not wrong:
        return float(not wrong)
    normal = NormalDist()
    places = np.linspace(-6, 6 + distance, 241)
    below = np.array([normal.cdf(place) for place in places])
    below_right, density = (np.array([f(place - distance) for place in places]) for f in (normal.cdf, normal.pdf))
    return float(np.trapezoid(right * density * below_right ** (right - 1) * below**wrong, places))


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
