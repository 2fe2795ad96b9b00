"""PerfRL's chain on small tasks: %OPT, speed and the share that passes, over several seeds.

    python benchmarks/faster_programs.py base=stories260K              # 3 seeds; needs bubblewrap
    python benchmarks/faster_programs.py base=... seeds=1 save=yes     # and the page's numbers

A task names a sum, a count or a multiple with numbers of its own; its programs are a slow loop, a loop, an expression
over a range, and a formula, of which the model first learns one in three to be fast. The reference is the loop. The
held-out tasks have other numbers. %OPT is the share of programs that pass in at most 1 / 1.1 of the reference's steps,
and speed how many times fewer steps it takes (0 for a program that does not pass, 10 at most). Gaps are to `sft`,
paired by seed.

The second table is LLMOPT's question, of the first model: `once` is one program, `again` the first of three that runs,
and `corrected` as many tries, each of which is told of the one before. None of them knows what is right.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import stored_numbers

from trimtab.pipelines.planning.recipe import Recipe

RECIPE = Path(__file__).with_suffix(".yaml")
TASKS = {  # what is asked -> programs, from slow to fast; the second is the reference
    "the sum of {k} * i + {c} for i from {a} to n": (
        "total = 0\n for i in range({a}, n + 1):\n  for j in range({k}):\n   total += i\n  total += {c}\n"
        " return total",
        "total = 0\n for i in range({a}, n + 1):\n  total += {k} * i + {c}\n return total",
        "return sum([{k} * i + {c} for i in range({a}, n + 1)])",
        "m = n - {a} + 1\n return {k} * ({a} + n) * m // 2 + {c} * m",
    ),
    "how many i from {a} to n are multiples of {k}, plus {c}": (
        "count = {c}\n for i in range({a}, n + 1):\n  r = i\n  while r >= {k}:\n   r -= {k}\n  if r == 0:\n"
        "   count += 1\n return count",
        "count = {c}\n for i in range({a}, n + 1):\n  if i % {k} == 0:\n   count += 1\n return count",
        "return len([i for i in range({a}, n + 1) if i % {k} == 0]) + {c}",
        "return n // {k} - ({a} - 1) // {k} + {c}",
    ),
    "the largest multiple of {k} up to {a} * n + {c}": (
        "m = 0\n for i in range({a} * n + {c} + 1):\n  r = i\n  while r >= {k}:\n   r -= {k}\n  if r == 0:\n   m = i\n"
        " return m",
        "m = 0\n for i in range({a} * n + {c} + 1):\n  if i % {k} == 0:\n   m = i\n return m",
        "return max([i for i in range({a} * n + {c} + 1) if i % {k} == 0])",
        "m = {a} * n + {c}\n return m - m % {k}",
    ),
}
CHANCES = (3, 3, 2, 1)  # of each program, in what the model learns first
TRIED = (9, 14)  # the n of the tests


def tasks(chance: Random) -> Iterator[dict[str, Any]]:
    """Every task with every choice of its numbers, with its tests, in an order by chance."""
    choices = [(asked, k, c, a) for asked in TASKS for k in range(2, 8) for c in range(1, 10) for a in range(1, 6)]
    chance.shuffle(choices)
    for asked, k, c, a in choices:
        numbers = {"k": k, "c": c, "a": a}
        programs = ["def f(n):\n " + program.format(**numbers) + "\n" for program in TASKS[asked]]
        tests = [f"assert f({n}) == {_value(programs[1], n)}" for n in TRIED]
        prompt = [{"role": "user", "content": "f(n) is " + asked.format(**numbers)}]
        checks = [f"f({n})" for n in TRIED]
        yield {"prompt": prompt, "code": programs[1], "test_list": tests, "checks": checks, "programs": programs}


def _value(program: str, n: int) -> int:
    names: dict[str, Any] = {}
    exec(program, names)  # one of ours
    return names["f"](n)


def write(folder: Path, seed: int) -> dict[str, str]:
    """The rows to learn from, the problems to sample and the held-out ones."""
    chance = Random(seed)
    made = list(tasks(chance))
    learned = []
    for task in made[:500]:
        (program,) = chance.choices(task["programs"], CHANCES)
        learned.append({"prompt": task["prompt"], "completion": [{"role": "assistant", "content": program}]})
    asked = [{key: task[key] for key in ("prompt", "code", "test_list", "checks")} for task in made]
    files = {"train": learned, "problems": asked[500:660], "test": asked[660:720]}
    paths = {name: folder / f"{name}-{seed}.jsonl" for name in files}
    for name, rows in files.items():
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: str(path.resolve()) for name, path in paths.items()}


def measured(words: list[str]) -> dict[str, dict[str, float]]:
    """The metrics of each policy of a run."""
    program = stored_numbers.ROOT / "scripts" / "train.py"
    subprocess.run([sys.executable, str(program), str(RECIPE), *words], check=True)
    steps = {step.name: step for step in Recipe.load(str(RECIPE), words).steps}
    policies = json.loads((steps["evaluate"].output / "evaluation.json").read_text())["policies"]
    numbers = {}
    for policy, about in policies.items():
        best = json.loads((steps[f"evaluate-{policy}-best"].output / "best_of.json").read_text())["metrics"]
        means = {reward: about["rewards"][reward]["mean"] for reward in about["rewards"]}
        numbers[policy] = {**means, "best": best["chosen/4/mean"]}
    for tries, about in json.loads((steps["tries"].output / "evaluation.json").read_text())["policies"].items():
        numbers[tries] = {"passes": about["rewards"]["passes"]["mean"]}
    return numbers


def table(runs: list[dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    rows = []
    for policy in (name for name in runs[0] if "best" in runs[0][name]):
        row: dict[str, Any] = {"policy": f"`{policy}`"}
        titles = {"passes": "passes, %", "optimised": "%OPT", "best": "%OPT of the best of 4", "faster": "speed"}
        for key, title in titles.items():
            row[title] = [run[policy][key] * (1 if key == "faster" else 100) for run in runs]
        for key, title in {"passes": "passes, gap", "optimised": "%OPT, gap"}.items():
            gaps = [100 * (run[policy][key] - run["sft"][key]) for run in runs]
            row[title] = "" if policy == "sft" else gaps
        rows.append(row)
    return rows


def tries(runs: list[dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    rows = []
    for name in ("once", "again", "corrected"):
        row: dict[str, Any] = {"tries": f"`{name}`", "passes, %": [100 * run[name]["passes"] for run in runs]}
        gaps = [100 * (run[name]["passes"] - run["again"]["passes"]) for run in runs]
        rows.append({**row, "gap to `again`": "" if name == "again" else gaps})
    return rows


def main(words: list[str]) -> None:
    given = dict(word.split("=", 1) for word in words if word != "save=yes")
    seeds = [int(seed) for seed in given.pop("seeds", "1,2,3").split(",")]
    folder = Path(given.pop("folder", "runs/faster-programs"))
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in seeds:
        inputs = {"base": str(Path(given["base"]).resolve()), **write(folder, seed)}
        named = [f"inputs.{name}={path}" for name, path in inputs.items()]
        overrides = ["wandb=false", f"name=faster-programs-{seed}", f"output_dir={folder}", f"seed={seed}", *named]
        runs.append(measured(overrides))
    tables, of_seeds = {"policies": table(runs), "tries": tries(runs)}, f"{len(seeds)} ({', '.join(map(str, seeds))})"
    stored_numbers.show("faster-programs", tables, seeds=of_seeds)


if __name__ == "__main__":
    main(sys.argv[1:])
