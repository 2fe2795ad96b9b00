"""PPO with critics beside GRPO on the tiny world, at equal samples: on the true reward itself, and at thresholds.

    python benchmarks/ppo_world.py                          # 5 seeds; about 40 minutes on 2 cores
    python benchmarks/ppo_world.py seeds=2 stages.constrained.train.max_steps=60

The worlds and the models of recipes/tiny-constrained.yaml, by seed, which all arms share. The first arms have the true
reward alone to maximise (with the recipe's KL); the last hold the two reward models at the recipe's thresholds (xi).
Printed is the last policy on 300 held-out prompts, means over seeds with standard errors; differences are paired by
seed.
"""

from __future__ import annotations

import sys

from constrained_world import PROXIES, RECIPE, STAGE, cell, row, run

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
    overrides = ["wandb=false", f"{STAGE}train.logging_steps=1", *(f"{key}={value}" for key, value in given.items())]
    found: dict[str, list[dict]] = {name: [] for name in ARMS}
    for seed in range(seeds):
        for name, own in ARMS.items():
            found[name].append(run(recipe, [f"seed={seed}", *overrides, *(STAGE + word for word in own)])["policies"])
        say(found)


def say(found: dict[str, list[dict]]) -> None:
    seeds = len(found["xi, PPO"])
    print(f"\nthe last policy on held-out prompts, {seeds} seeds")
    row("arm", "gold", "gold - start", "gold - GRPO", *PROXIES, "KL", "tokens")
    for name, runs in found.items():
        gold = [each["constrained"]["rewards"]["gold"]["mean"] for each in runs]
        start = [each["sft"]["rewards"]["gold"]["mean"] for each in runs]
        grpo = [each["constrained"]["rewards"]["gold"]["mean"] for each in found[name.split(",")[0] + ", GRPO"]]
        last = [each["constrained"] for each in runs]
        row(name, cell(gold), *(cell([a - b for a, b in zip(gold, other, strict=True)]) for other in (start, grpo)),
            *(cell([each["rewards"][proxy]["mean"] for each in last], 2) for proxy in PROXIES),
            *(cell([each[key]["mean"] for each in last], 1) for key in ("kl", "length")))  # fmt: skip
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
