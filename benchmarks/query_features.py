"""What 200 more labels are worth to a reward model, chosen by its posterior or at random, over several seeds.

    python benchmarks/query_features.py           # 5 seeds; a quarter of an hour of a core; save=yes keeps the numbers
    python benchmarks/query_features.py seeds=2 stages.query.budget=100

Every seed has a world, a language model, and a reward model of 200 labels (query_features.yaml), whose features the
rule `posterior` goes by; both rules share them. Of 1,000 pairs of the language model 200 are asked about, and another
reward model learns from all 400 labels. Told is the accuracy on held-out pairs; differences are paired by seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import program_words
import recipe_runs
import stored_numbers

RECIPE = Path(__file__).with_suffix(".yaml")
RULES = ("random", "posterior")


def main(words: list[str]) -> None:
    seeds, overrides = program_words.given(words, 5)
    before: list[float] = []
    after: dict[str, list[float]] = {rule: [] for rule in RULES}
    for seed in range(seeds):
        for rule in RULES:
            steps = recipe_runs.run(RECIPE, [f"seed={seed}", *overrides, f"stages.query.rule={rule}"])
            told = recipe_runs.metrics(steps["quality"])
            after[rule].append(told["helpful/accuracy/mean"])
        before.append(told["first/accuracy/mean"])
    rows = []
    for rule in RULES:
        gained = [now - then for now, then in zip(after[rule], before, strict=True)]
        gap = [ours - control for ours, control in zip(after[rule], after["random"], strict=True)]
        rows.append({"asked about": rule, "200 labels": before, "400 labels": after[rule], "gained": gained,
                     "- random": gap if rule != "random" else ""})  # fmt: skip
    named = f"{seeds}, each with a world, a language model and a first reward model"
    stored_numbers.show("query-features", {"worth": rows}, seeds=named, recipe=(str(RECIPE), ["seed=0", *overrides]))


if __name__ == "__main__":
    main(sys.argv[1:])
