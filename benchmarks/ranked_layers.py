"""How much of each layer's DPO to keep: descent by ranks beside random search, on the tiny world, over several seeds.

    python benchmarks/ranked_layers.py            # 3 seeds; half an hour of a core; save=yes keeps the numbers
    python benchmarks/ranked_layers.py seeds=5 stages.search.rounds=16

Every seed has a world, a language model and its DPO (ranked_layers.yaml), which both methods share. They ask about the
same number of policies by the true reward of 48 prompts; the gain is that on 300 others, to the whole of the DPO.
"""

from __future__ import annotations

import sys
from pathlib import Path

import program_words
import recipe_runs
import stored_numbers

RECIPE = Path(__file__).with_suffix(".yaml")
METHODS = ("random", "ranks")


def main(words: list[str]) -> None:
    seeds, overrides = program_words.given(words, 3)
    told: dict[str, list[dict]] = {method: [] for method in METHODS}
    for seed in range(seeds):
        for method in METHODS:
            steps = recipe_runs.run(RECIPE, [f"seed={seed}", *overrides, f"stages.search.method={method}"])
            told[method].append(dict(recipe_runs.metrics(steps["search"])))
    gains = {method: [each["gain/mean"] for each in runs] for method, runs in told.items()}
    rows = []
    for method, runs in told.items():
        gap = [ours - control for ours, control in zip(gains[method], gains["random"], strict=True)]
        rows.append({
            "method": method,
            "policies asked about": [float(each["asked"]) for each in runs],
            "gain": gains[method],
            "- random": gap if method != "random" else "",
            "best seen by the search": [each["reward/best"] for each in runs],
            "distance gone": [each["distance"] for each in runs],
        })  # fmt: skip
    named = f"{seeds}, each with a world, a language model and its DPO"
    stored_numbers.show("ranked-layers", {"gains": rows}, seeds=named, recipe=(str(RECIPE), ["seed=0", *overrides]))


if __name__ == "__main__":
    main(sys.argv[1:])
