"""Look-ahead momentum, and the options of multipliers, with a language model on the tiny world.

    python benchmarks/look_ahead_world.py         # 3 seeds; half an hour of a core; save=yes keeps the numbers
    python benchmarks/look_ahead_world.py seeds=1 stages.constrained.train.max_steps=20

The worlds and the models of recipes/tiny-constrained.yaml, by seed, which all arms share; GRPO, 60 steps of 64
completions. First the true reward itself is maximised (with the recipe's KL): by AdamW, by steps of a given length
with momentum, and by those with a look ahead (igt), each at the best of three rates, chosen by the mean over seeds.
Then the two reward models are held at the recipe's thresholds (xi), by the recipe's multipliers (gradient descent with
a proportional term) and each option beside it: anchored as Halpern's iteration is, standing still at their average
after half of the training, by the augmented Lagrangian, and by gradient descent without any of them.

Printed is the last policy on 300 held-out prompts: the true reward, and the distances from the thresholds; then, of
the second half of the training, the root of the mean square of what a step's mean rewards were off by. Means over
seeds with standard errors; differences are paired by seed.
"""

from __future__ import annotations

import sys
from typing import Any

import stored_numbers
from constrained_world import PROXIES, RECIPE, STAGE, run
from ppo_world import GOLD

from trimtab.pipelines.planning.recipe import Recipe

ALWAYS = [f"{STAGE}train.max_steps=60", f"{STAGE}train.max_grad_norm=0", "stages.evaluate.num_generations=1"]
ADAMW, MOMENTUM, AHEAD = "AdamW", "momentum", "igt"
LENGTHS = (0.1, 0.3, 1.0)  # of a step of all weights
OPTIMIZERS: dict[str, tuple[list[str], tuple[float, ...]]] = {
    ADAMW: ([], (1e-4, 3e-4, 1e-3)),
    MOMENTUM: (["optimizer={class: igt, eta: 0.3, look_ahead: false}"], LENGTHS),
    AHEAD: (["optimizer={class: igt, eta: 0.3}"], LENGTHS),
}
PLAIN = "learning_rate: 0.03"
OF_RECIPE = "the recipe's"
MULTIPLIERS = {
    OF_RECIPE: f"{{{PLAIN}, proportional: 0.3}}",
    "gradient alone": f"{{{PLAIN}}}",
    "Halpern": f"{{{PLAIN}, anchoring: 1.0}}",
    "averaged": f"{{{PLAIN}, settle: 30}}",
    "augmented": "{parametrization: projected, update: augmented, penalty: 0.1}",
}


def main(words: list[str]) -> None:
    given = dict(word.split("=", 1) for word in words)
    seeds, recipe = int(given.pop("seeds", 3)), given.pop("recipe", RECIPE)
    given.pop("save", None)
    overrides = ["wandb=false", f"{STAGE}train.logging_steps=1", *ALWAYS]
    overrides += [f"{key}={value}" for key, value in given.items()]

    def runs(own: list[str]) -> list[dict]:
        return [run(recipe, [f"seed={seed}", *overrides, *(STAGE + word for word in own)]) for seed in range(seeds)]

    policies = {}
    for name, (own, rates) in OPTIMIZERS.items():
        policies[name] = {rate: runs([*GOLD, *own, f"train.learning_rate={rate}"]) for rate in rates}
    held = {name: runs(["method=xi", f"multipliers={block}"]) for name, block in MULTIPLIERS.items()}
    rewards = Recipe.load(recipe, overrides).document.values["stages"]["constrained"]["rewards"]
    thresholds = {name: rewards[name]["threshold"] for name in PROXIES}
    tables = {"optimizers": of_optimizers(policies), "multipliers": of_multipliers(held, thresholds)}
    seeds_named = f"{seeds}, each with a world, a language model and reward models"
    stored_numbers.show("look-ahead-world", tables, seeds=seeds_named, recipe=(recipe, ["seed=0", *overrides]))


def gold(runs: list[dict], policy: str = "constrained") -> list[float]:
    return [each["policies"][policy]["rewards"]["gold"]["mean"] for each in runs]


def less(ours: list[float], control: list[float]) -> list[float]:
    return [a - b for a, b in zip(ours, control, strict=True)]


def of_optimizers(policies: dict[str, dict[float, list[dict]]]) -> list[dict[str, Any]]:
    """The true reward at every rate, and at the best one less that of the start and of the others."""
    best = {
        name: max(of_rates, key=lambda rate, runs=of_rates: sum(gold(runs[rate])))
        for name, of_rates in policies.items()
    }
    rows = []
    for name, of_rates in policies.items():
        columns = zip(("lowest rate", "middle", "highest"), of_rates.values(), strict=True)
        row: dict[str, Any] = {"optimizer": name, **{column: gold(runs) for column, runs in columns}}
        chosen = of_rates[best[name]]
        row["best rate"] = f"{best[name]:g}" + ("" if best[name] == list(of_rates)[1] else "*")
        row["best - start"] = less(gold(chosen), gold(chosen, "sft"))
        for other in (ADAMW, MOMENTUM):
            row[f"best - {other}"] = "" if other == name else less(gold(chosen), gold(policies[other][best[other]]))
        row["KL"] = [each["policies"]["constrained"]["kl"]["mean"] for each in chosen]
        rows.append(row)
    return rows


def of_multipliers(held: dict[str, list[dict]], thresholds: dict[str, float]) -> list[dict[str, Any]]:
    """The true reward, and how near the rewards were to their thresholds, at the end and on the way."""
    rows = []
    for name, runs in held.items():
        row: dict[str, Any] = {"multipliers": name, "gold": gold(runs)}
        for proxy, threshold in thresholds.items():
            ends = [each["policies"]["constrained"]["rewards"][proxy]["mean"] for each in runs]
            row[f"{proxy}, distance"] = [abs(end - threshold) for end in ends]
        for proxy, threshold in thresholds.items():
            row[f"{proxy}, on the way"] = [off(each["series"][f"rewards/{proxy}"], threshold) for each in runs]
        rows.append(row)
    control = rows[0]
    for row in rows:
        for proxy in thresholds:
            key = f"{proxy}, on the way"
            row[f"{proxy} - {OF_RECIPE}"] = "" if row is control else less(row[key], control[key])
    return rows


def off(means: list[float], threshold: float) -> float:
    """The root of the mean square of the distances from a threshold, over the second half of a training."""
    half = means[len(means) // 2 :]
    return (sum((mean - threshold) ** 2 for mean in half) / len(half)) ** 0.5


if __name__ == "__main__":
    main(sys.argv[1:])
