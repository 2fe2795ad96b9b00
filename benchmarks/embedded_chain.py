"""What each stage of the embedded recipe reaches by the true reward, over several seeds.

    python benchmarks/embedded_chain.py                 # 5 seeds; five minutes of a processor each
    python benchmarks/embedded_chain.py save=yes        # and the page's numbers; goes on where it was
    python benchmarks/embedded_chain.py seeds=2 stages.world.prompts=200

Every seed has a world, a language model and reward models of its own. Policies are measured on the recipe's held-out
prompts; a row has the mean over seeds, whose standard error is that between trainings, and the error over prompts that
a single seed would have told. Differences to the policy before are paired by seed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import program_words
import recipe_runs
import stored_numbers

RECIPE = str(Path(__file__).resolve().parents[1] / "recipes" / "tiny.yaml")
BEFORE = {"dpo": "sft", "apo": "dpo", "constrained": "sft", "curated": "apo"}  # what each policy was trained from


def main(words: list[str]) -> None:
    seeds, overrides = program_words.given(words, 5)
    runs = []
    for seed in range(seeds):
        steps = recipe_runs.run(RECIPE, [f"seed={seed}", *overrides])
        runs.append(recipe_runs.policies(steps["evaluate"]))
    named = f"{seeds} (0 to {seeds - 1})"
    stored_numbers.show("tiny-world", {"chain": table(runs)}, seeds=named, recipe=(RECIPE, ["seed=0", *overrides]))


def table(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def gold(policy: str) -> list[float]:
        return [run[policy]["rewards"]["gold"]["mean"] for run in runs]

    rows = []
    for policy in runs[0]:
        before = BEFORE.get(policy)
        errors = [run[policy]["rewards"]["gold"]["stderr"] for run in runs]
        gained = [mine - other for mine, other in zip(gold(policy), gold(before), strict=True)] if before else ""
        rows.append({
            "policy": f"`{policy}`",
            "gold": gold(policy),
            "error over prompts of one seed": sum(errors) / len(errors),
            "trained from": f"`{before}`" if before else "",
            "gold - gold before": gained,
            "KL": [run[policy]["kl"]["mean"] for run in runs],
        })  # fmt: skip
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
