"""Best-of-n against each learned reward model of the tiny world: the proxy rises, the gold reward rises and falls.

    python benchmarks/best_of_n.py           # 5 seeds; ten minutes of a core; save=yes keeps the numbers
    python benchmarks/best_of_n.py seeds=2 stages.world.prompts=200

Gao et al. 2023 (https://arxiv.org/abs/2210.10760). Every seed has a world, a language model and reward models of its
own (recipes/tiny.yaml), and 64 completions of each of 100 held-out prompts. Tables with standard errors over seeds,
and the differences, paired by seed, from n = 1 to the best n to the largest.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import program_words
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
PROXIES = ("coverage", "politeness")


def main(words: list[str]) -> None:
    seeds, overrides = program_words.given(words, 5)
    overrides = [*OVERRIDES, *overrides]
    scored: dict[int, dict[str, Any]] = {n: {"n": n} for n in SIZES}
    groups = [scores([f"seed={seed}", *overrides]) for seed in range(seeds)]
    differences = []
    for proxy in PROXIES:
        gold = {}
        for n in SIZES:
            proxies, gold[n] = zip(*(over_prompts(of_seed, proxy, n) for of_seed in groups), strict=True)
            scored[n] |= {proxy: list(proxies), f"gold, best of n by {proxy}": list(gold[n])}
        peak = max(SIZES, key=lambda n, gold=gold: sum(gold[n]))
        for first, last in ((SIZES[0], peak), (peak, SIZES[-1])):
            changed = [after - before for before, after in zip(gold[first], gold[last], strict=True)]
            differences.append({"best of n by": proxy, "n": f"{first} to {last}", "gold": changed})
    tables = {"sizes": list(scored.values()), "differences": differences}
    named = f"{seeds}, each with a world, a language model and reward models; 100 prompts x {SIZES[-1]} completions"
    stored_numbers.show("best-of-n", tables, seeds=named, recipe=(RECIPE, ["seed=0", *overrides]))


def scores(words: list[str]) -> list[list[dict[str, float]]]:
    """The rewards of every completion, by prompt."""
    for stage in ("world", "scratch", "sft", *PROXIES, "sample", "score"):
        if train.main([RECIPE, *words, "--stage", stage]):
            sys.exit(1)
    step = next(step for step in Recipe.load(RECIPE, words).steps if step.name == "score")
    groups: dict[int, list[dict[str, float]]] = defaultdict(list)
    for row in pq.read_table(step.output / "train.parquet").to_pylist():
        groups[row["prompt_index"]].append(row["scores"])
    return list(groups.values())


def over_prompts(groups: list[list[dict[str, float]]], proxy: str, n: int) -> tuple[float, float]:
    """The mean over prompts of `best_of`."""
    proxies, golds = zip(*(best_of(of_prompt, proxy, n) for of_prompt in groups), strict=True)
    return sum(proxies) / len(groups), sum(golds) / len(groups)


def best_of(scores: list[dict[str, float]], proxy: str, n: int) -> tuple[float, float]:
    """Mean (proxy, gold) of the winners by `proxy` of all disjoint groups of n completions of a prompt."""
    winners = [max(scores[i : i + n], key=lambda s: s[proxy]) for i in range(0, len(scores), n)]
    return tuple(sum(winner[name] for winner in winners) / len(winners) for name in (proxy, "gold"))


if __name__ == "__main__":
    main(sys.argv[1:])
