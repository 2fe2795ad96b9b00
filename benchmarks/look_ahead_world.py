"""Look-ahead momentum, and the options of multipliers, with a language model on the tiny world.

    python benchmarks/look_ahead_world.py         # 3 seeds; 25 minutes of a core; save=yes keeps the numbers
    python benchmarks/look_ahead_world.py seeds=1 stages.constrained.train.max_steps=20

The worlds and the models of recipes/tiny-constrained.yaml, by seed, which all arms share; GRPO, 40 steps of 64
completions. First the true reward itself is maximised (with the recipe's KL), with rates that decay to 0: by AdamW, by
steps of a given length with momentum, and by those with a look ahead (igt), each at the best of three rates in the
first seed. Then the two reward models are held at the recipe's thresholds (xi): by the recipe's multipliers (gradient
descent with a proportional term), by gradient descent without it, anchored as Halpern's iteration is, or standing
still at the average after half of the training; and without a bound, by gradient descent and by the augmented
Lagrangian of the same step.

Printed is the last policy on 300 held-out prompts: the true reward, and the distances from the thresholds in standard
deviations; then, of the second half of the training, the root of the mean square of what a step's mean rewards were
off by. Means over seeds with standard errors; differences are paired by seed.
"""

from __future__ import annotations

import sys
from typing import Any

import stored_numbers
from constrained_world import PROXIES, RECIPE, STAGE, run
from ppo_world import GOLD

from trimtab.pipelines.planning.recipe import Recipe

ALWAYS = ["wandb=false", "stages.evaluate.num_generations=1", f"{STAGE}train.logging_steps=1"]
ALWAYS += [f"{STAGE}train.max_steps=40"]
ADAMW, MOMENTUM, AHEAD = "AdamW", "momentum", "igt"
RATES = (3e-4, 1e-3, 3e-3)
LENGTHS = (0.1, 0.3, 1.0)  # of a step of all weights
OF_LENGTH = "train.max_grad_norm=0"
OPTIMIZERS: dict[str, tuple[list[str], tuple[float, ...]]] = {
    ADAMW: ([], RATES),
    MOMENTUM: (["optimizer={class: igt, eta: 0.3, look_ahead: false}", OF_LENGTH], LENGTHS),
    AHEAD: (["optimizer={class: igt, eta: 0.3}", OF_LENGTH], LENGTHS),
}
OF_RECIPE = "the recipe's"
MULTIPLIERS = {
    OF_RECIPE: "{learning_rate: 0.1, proportional: 1.0}",
    "gradient alone": "{learning_rate: 0.1}",
    "anchored": "{learning_rate: 0.1, anchoring: 1.0}",
    "averaged": "{learning_rate: 0.1, settle: 20}",
    "unbounded": "{learning_rate: 0.1, parametrization: projected}",
    "augmented": "{parametrization: projected, update: augmented, penalty: 0.1}",
}


def main(words: list[str]) -> None:
    given = dict(word.split("=", 1) for word in words)
    seeds, recipe = range(int(given.pop("seeds", 3))), given.pop("recipe", RECIPE)
    given.pop("save", None)
    overrides = [*ALWAYS, *(f"{key}={value}" for key, value in given.items())]

    def trained(own: list[str], seed: int) -> dict:
        return run(recipe, [f"seed={seed}", *overrides, *(STAGE + word for word in own)])

    policies, tried = {}, []
    for name, (own, rates) in OPTIMIZERS.items():
        arms = [[*GOLD, *own, f"train.learning_rate={rate}", "train.lr_scheduler_type=linear"] for rate in rates]
        firsts = [trained(arm, 0) for arm in arms]
        ends = gold(firsts)
        best = ends.index(max(ends))
        policies[name] = [firsts[best], *(trained(arms[best], seed) for seed in seeds[1:])]
        columns = zip(("lowest rate", "middle", "highest"), ends, strict=True)
        tried.append(
            {"optimizer": name, **{key: f"{end:.3f}" for key, end in columns}, "best rate": f"{rates[best]:g}"}
        )
    held = {
        name: [trained(["method=xi", f"multipliers={block}"], seed) for seed in seeds]
        for name, block in MULTIPLIERS.items()
    }
    rewards = Recipe.load(recipe, overrides).document.values["stages"]["constrained"]["rewards"]
    thresholds = {name: rewards[name]["threshold"]["z"] for name in PROXIES}
    tables = {"rates": tried, "optimizers": of_optimizers(policies), "multipliers": of_multipliers(held, thresholds)}
    named = f"{len(seeds)}, each with a world, a language model and reward models"
    stored_numbers.show("look-ahead-on-the-tiny-world", tables, seeds=named, recipe=(recipe, ["seed=0", *overrides]))


def gold(runs: list[dict], policy: str = "constrained") -> list[float]:
    return [each["policies"][policy]["rewards"]["gold"]["mean"] for each in runs]


def less(ours: list[float], control: list[float]) -> list[float]:
    return [a - b for a, b in zip(ours, control, strict=True)]


def of_optimizers(policies: dict[str, list[dict]]) -> list[dict[str, Any]]:
    """The true reward of the last policies, less that of the start and of the other optimizers."""
    rows = []
    for name, runs in policies.items():
        row: dict[str, Any] = {
            "optimizer": name,
            "gold": gold(runs),
            "gold - start": less(gold(runs), gold(runs, "sft")),
        }
        for other in (ADAMW, MOMENTUM):
            row[f"gold - {other}"] = "" if other == name else less(gold(runs), gold(policies[other]))
        rows.append({**row, "KL": [each["policies"]["constrained"]["kl"]["mean"] for each in runs]})
    return rows


def of_multipliers(held: dict[str, list[dict]], thresholds: dict[str, float]) -> list[dict[str, Any]]:
    """The true reward, and how far the rewards were from their thresholds, at the end and on the way."""
    rows = []
    for name, runs in held.items():
        row: dict[str, Any] = {"multipliers": name, "gold": gold(runs)}
        for proxy, threshold in thresholds.items():
            ends = [each["policies"]["constrained"]["rewards"][proxy]["mean"] for each in runs]
            row[f"{proxy}, distance"] = [abs(end - threshold) for end in ends]
        for proxy, threshold in thresholds.items():
            row[f"{proxy}, on the way"] = [off(each["series"][f"rewards/{proxy}"], threshold) for each in runs]
        rows.append(row)
    return rows


def off(means: list[float], threshold: float) -> float:
    """The root of the mean square of the distances from a threshold, over the second half of a training."""
    half = means[len(means) // 2 :]
    return (sum((mean - threshold) ** 2 for mean in half) / len(half)) ** 0.5


if __name__ == "__main__":
    main(sys.argv[1:])
