"""PPO with critics beside GRPO on the tiny world, at equal samples: on the true reward itself, and at thresholds.

    python benchmarks/ppo_world.py                # 5 seeds; 40 minutes on 2 cores; save=yes keeps the numbers
    python benchmarks/ppo_world.py seeds=2 stages.constrained.train.max_steps=60

The worlds and the models of recipes/tiny-constrained.yaml, by seed, which all arms share. The first arms have the true
reward alone to maximise (with the recipe's KL); the last hold the two reward models at the recipe's thresholds (xi).
Printed is the last policy on 300 held-out prompts, means over seeds with standard errors; differences are paired by
seed.
"""

from __future__ import annotations

import sys
from typing import Any

import stored_numbers
from constrained_world import PROXIES, RECIPE, STAGE, run

GOLD = ["method=fixed", "rewards.coverage.weight=0", "rewards.politeness.weight=0", "rewards.gold.weight=1"]
CRITICS = ["trainer=ppo", "critics.learning_rate=1e-3"]
ARMS = {
    "gold, GRPO": GOLD,
    "gold, PPO": [*GOLD, *CRITICS],
    "gold, PPO shared": [*GOLD, *CRITICS, "critics.trunk=shared"],
    "xi, GRPO": ["method=xi"],
    "xi, PPO": ["method=xi", *CRITICS],
}


def main(words: list[str]) -> None:
    given = dict(word.split("=", 1) for word in words)
    seeds, recipe = int(given.pop("seeds", 5)), given.pop("recipe", RECIPE)
    given.pop("save", None)
    overrides = ["wandb=false", f"{STAGE}train.logging_steps=1", *(f"{key}={value}" for key, value in given.items())]
    found: dict[str, list[dict]] = {name: [] for name in ARMS}
    for seed in range(seeds):
        for name, own in ARMS.items():
            found[name].append(run(recipe, [f"seed={seed}", *overrides, *(STAGE + word for word in own)])["policies"])
    named = f"{seeds}, each with a world, a language model and reward models"
    stored_numbers.show("critics", {"arms": rows(found)}, seeds=named, recipe=(recipe, ["seed=0", *overrides]))


def rows(found: dict[str, list[dict]]) -> list[dict[str, Any]]:
    """The last policy of each arm on held-out prompts; differences are paired by seed."""

    def gold(name: str, policy: str) -> list[float]:
        return [each[policy]["rewards"]["gold"]["mean"] for each in found[name]]

    def less(ours: list[float], control: list[float]) -> list[float]:
        return [a - b for a, b in zip(ours, control, strict=True)]

    arms = []
    for name, runs in found.items():
        ours, grpo = gold(name, "constrained"), gold(name.split(",")[0] + ", GRPO", "constrained")
        compared = {"gold - start": less(ours, gold(name, "sft")), "gold - GRPO": less(ours, grpo)}
        last = [each["constrained"] for each in runs]
        proxies = {proxy: [each["rewards"][proxy]["mean"] for each in last] for proxy in PROXIES}
        cost = {title: [each[key]["mean"] for each in last] for title, key in (("KL", "kl"), ("tokens", "length"))}
        arms.append({"arm": name, "gold": ours, **compared, **proxies, **cost})
    return arms


if __name__ == "__main__":
    main(sys.argv[1:])
