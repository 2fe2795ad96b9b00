"""Best-of-n against each learned reward model of the tiny world: the proxy rises, the gold reward rises and falls.

Gao et al. 2023 (https://arxiv.org/abs/2210.10760). The samples and scores are steps of the embedded recipe, with
overrides, so they are made once and shared:

    python benchmarks/best_of_n.py                      # about 2 minutes on 2 cores after `make demo`
    python benchmarks/best_of_n.py seed=1               # another world, other models

Prints a table with standard errors over prompts, and the paired differences from n = 1 to the best n to the largest.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import pyarrow.parquet as pq

from trimtab.pipelines.algorithms.statistics import mean_stderr
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


def main(overrides: list[str]) -> None:
    words = [RECIPE, *OVERRIDES, *overrides]
    for stage in ("world", "scratch", "sft", "coverage", "politeness", "sample", "score"):
        if train.main([*words, "--stage", stage]):
            sys.exit(1)
    step = next(step for step in Recipe.load(RECIPE, words[1:]).steps if step.name == "score")
    groups: dict[int, list[dict[str, float]]] = defaultdict(list)
    for row in pq.read_table(step.output / "train.parquet").to_pylist():
        groups[row["prompt_index"]].append(row["scores"])
    print(f"\n{len(groups)} prompts x {SIZES[-1]} completions of the SFT model; mean +- standard error over prompts")
    for proxy in ("coverage", "politeness"):
        print(f"\nbest of n by {proxy}\n{'n':>4}  {'proxy':>16}  {'gold':>16}")
        gold = {}
        for n in SIZES:
            chosen = [best_of(scores, proxy, n) for scores in groups.values()]
            gold[n] = [reward for _, reward in chosen]
            proxies, golds = mean_stderr([score for score, _ in chosen]), mean_stderr(gold[n])
            print(f"{n:>4}  {proxies[0]:>7.3f} +- {proxies[1]:.3f}  {golds[0]:>7.3f} +- {golds[1]:.3f}")
        peak = max(SIZES, key=lambda n: sum(gold[n]))
        for a, b in ((SIZES[0], peak), (peak, SIZES[-1])):
            if a != b:
                mean, stderr = mean_stderr([y - x for x, y in zip(gold[a], gold[b], strict=True)])
                print(f"gold, n = {a} to {b}: {mean:+.3f} +- {stderr:.3f} ({mean / stderr:+.1f} standard errors)")


def best_of(scores: list[dict[str, float]], proxy: str, n: int) -> tuple[float, float]:
    """Mean (proxy, gold) of the winners by `proxy` of all disjoint groups of n completions of a prompt."""
    winners = [max(scores[i : i + n], key=lambda s: s[proxy]) for i in range(0, len(scores), n)]
    return tuple(sum(winner[name] for winner in winners) / len(winners) for name in (proxy, "gold"))


if __name__ == "__main__":
    main(sys.argv[1:])
