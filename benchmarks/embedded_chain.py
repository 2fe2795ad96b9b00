"""What each stage of the embedded recipe reaches by the true reward, over several seeds.

    python benchmarks/embedded_chain.py                 # 5 seeds; five minutes of a processor each
    python benchmarks/embedded_chain.py save=yes        # and the page's numbers; goes on where it was
    python benchmarks/embedded_chain.py seeds=2 stages.world.prompts=200

Every seed has a world, a language model and reward models of its own. Policies are measured on the recipe's held-out
prompts; a row has the mean over seeds, whose standard error is that between trainings, and the error over prompts that
a single seed would have told. Differences to the policy before are paired by seed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import stored_numbers

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.scripts import train

RECIPE = "recipes/tiny.yaml"
BEFORE = {"dpo": "sft", "apo": "dpo", "constrained": "sft", "curated": "apo"}  # what each policy was trained from


def main(words: list[str]) -> int:
    given = dict(word.split("=", 1) for word in words)
    seeds, save = int(given.pop("seeds", 5)), given.pop("save", "no") == "yes"
    overrides = ["wandb=false", *(f"{key}={value}" for key, value in given.items())]
    runs = []
    for seed in range(seeds):
        policies = evaluated([f"seed={seed}", *overrides])
        if policies is None:
            return 1
        runs.append(policies)
        rows = table(runs)
        print(stored_numbers.table({"tables": {"chain": rows}}, "chain"), flush=True)
    if save:
        path = str(stored_numbers.ROOT / RECIPE)
        named = f"{seeds} (0 to {seeds - 1})"
        stored_numbers.store("tiny-world", {"chain": rows}, seeds=named, recipe=(path, ["seed=0", *overrides]))
    return 0


def evaluated(words: list[str]) -> dict[str, Any] | None:
    """What evaluation.json says of each policy of a run; None where the run has failed."""
    path = str(stored_numbers.ROOT / RECIPE)
    if train.main([path, *words]):
        return None
    steps = {step.name: step for step in Recipe.load(path, words).steps}
    return json.loads((steps["evaluate"].output / "evaluation.json").read_text())["policies"]


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
    sys.exit(main(sys.argv[1:]))
