"""Best-of-n against each learned reward model of the tiny world: the proxy rises, the gold reward rises and falls.

Gao et al. 2023 (https://arxiv.org/abs/2210.10760). The samples and scores are steps of the embedded recipe, with
overrides, so they are made once and shared:

    python benchmarks/best_of_n.py           # 2 minutes on 2 cores after `make demo`; save=yes keeps the numbers
    python benchmarks/best_of_n.py seed=1               # another world, other models

Tables with standard errors over prompts, and the paired differences from n = 1 to the best n to the largest.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import pyarrow.parquet as pq
import stored_numbers

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.scripts import train

RECIPE = str(Path(__file__).resolve().parents[1] / "recipes" / "tiny.yaml")
OVERRIDES = (
    "stages.sample.model.model_name_or_path=$sft",
    "stages.sample.prompts={path: $world/prompts, split: 'test[:100]'}",
    "stages.sample.num_generations=64",
    "stages.score.rewards.gold={kind: gold}",
)
SIZES = (1, 2, 4, 8, 16, 64)


def main(given: list[str]) -> None:
    overrides = [word for word in given if word != "save=yes"]
    words = [RECIPE, *OVERRIDES, *overrides]
    for stage in ("world", "scratch", "sft", "coverage", "politeness", "sample", "score"):
        if train.main([*words, "--stage", stage]):
            sys.exit(1)
    step = next(step for step in Recipe.load(RECIPE, words[1:]).steps if step.name == "score")
    groups: dict[int, list[dict[str, float]]] = defaultdict(list)
    for row in pq.read_table(step.output / "train.parquet").to_pylist():
        groups[row["prompt_index"]].append(row["scores"])
    gold: dict[str, dict[int, list[float]]] = {}
    scored: dict[int, dict[str, Any]] = {n: {"n": n} for n in SIZES}
    differences = []
    for proxy in ("coverage", "politeness"):
        chosen = {n: [best_of(scores, proxy, n) for scores in groups.values()] for n in SIZES}
        gold[proxy] = {n: [reward for _, reward in chosen[n]] for n in SIZES}
        for n in SIZES:
            scored[n] |= {proxy: [score for score, _ in chosen[n]], f"gold, best of n by {proxy}": gold[proxy][n]}
        peak = max(SIZES, key=lambda n, proxy=proxy: sum(gold[proxy][n]))
        for a, b in ((SIZES[0], peak), (peak, SIZES[-1])):
            changed = [y - x for x, y in zip(gold[proxy][a], gold[proxy][b], strict=True)]
            differences.append({"best of n by": proxy, "n": f"{a} to {b}", "gold": changed})
    tables = {"sizes": list(scored.values()), "differences": differences}
    said = f"one; {len(groups)} prompts x {SIZES[-1]} completions of the SFT model"
    stored_numbers.show("best-of-n", tables, seeds=said, recipe=(RECIPE, words[1:]))


def best_of(scores: list[dict[str, float]], proxy: str, n: int) -> tuple[float, float]:
    """Mean (proxy, gold) of the winners by `proxy` of all disjoint groups of n completions of a prompt."""
    winners = [max(scores[i : i + n], key=lambda s: s[proxy]) for i in range(0, len(scores), n)]
    return tuple(sum(winner[name] for winner in winners) / len(winners) for name in (proxy, "gold"))


if __name__ == "__main__":
    main(sys.argv[1:])
