"""Does momentum help? Five arms of three rounds on the tiny world, where the true reward is known, over several seeds.

    python benchmarks/apo_world.py                # 5 seeds; half an hour on 2 cores; save=yes keeps the numbers
    python benchmarks/apo_world.py seeds=3 stages.apo.loss=sppo
    python benchmarks/apo_world.py recipe=my.yaml reward=helpful seeds=2 save=yes as=NAME inputs.pairs=...

Every seed has its own world, language model and reward model (recipes/tiny-apo.yaml); the arms share them, the prompts
of each round, and the number of samples and optimizer steps:

    iterative   momentum 0, beta
    matched     momentum 0, beta / 1.39, 1.3 and 1: where exact rounds with momentum 0.3 end, and so its honest control
    apo 0.3     momentum 0.3, beta
    apo 0.6     momentum 0.6, beta
    rate x 1.3  momentum 0, beta, learning rate x 1.3: few steps of Adam hardly see beta, so this is the control of
                the longer way that momentum goes

The table has the reward (`reward=`, the true one by default) on held-out prompts after each round, the mean over seeds
with its standard error, then differences paired by seed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pictures
import recipe_runs
import stored_numbers

RECIPE = str(Path(__file__).resolve().parents[1] / "recipes" / "tiny-apo.yaml")
ARMS = {
    "iterative": ["stages.apo.momentum=0"],
    "matched": ["stages.apo.arm=matched"],
    "apo 0.3": [],
    "apo 0.6": ["stages.apo.momentum=0.6"],
    "rate x 1.3": ["stages.apo.arm=rate"],
}
PAIRS = (("apo 0.3", "iterative"), ("apo 0.3", "matched"), ("apo 0.3", "rate x 1.3"), ("apo 0.6", "matched"),
         ("matched", "iterative"))  # fmt: skip
QUANTITIES = ("kl", "length")


def main(words: list[str]) -> None:
    options = {
        "seeds": "5",
        "recipe": RECIPE,
        "reward": "gold",
        "save": "no",
        "as": "momentum-on-the-tiny-world",
    }
    given = dict(word.split("=", 1) for word in words)
    options |= {key: given.pop(key) for key in options if key in given}
    overrides = [f"{key}={value}" for key, value in given.items()]
    found: dict[str, list[dict]] = {arm: [] for arm in ARMS}
    for seed in range(int(options["seeds"])):
        for arm, own in ARMS.items():
            words = [f"seed={seed}", "wandb=false", *overrides, *own]
            steps = recipe_runs.run(options["recipe"], words)
            found[arm].append(recipe_runs.policies(steps["evaluate"]))
    shared = ", each with a world, a language model and a reward model" if options["recipe"] == RECIPE else ""
    seeds = f"{options['seeds']}{shared}"
    recipe = (options["recipe"], ["seed=0", "wandb=false", *overrides])
    told = {**tables(found, options["reward"]), "rounds": curves(found, options["reward"])}
    stored_numbers.show(options["as"], told, seeds=seeds, recipe=recipe)


def tables(found: dict[str, list[dict]], reward: str) -> dict[str, list[dict[str, Any]]]:
    """The reward on held-out prompts after each round, by arm, and differences paired by seed."""

    def means(arm: str, policy: str) -> list[float]:
        return [run_[policy]["rewards"][reward]["mean"] for run_ in found[arm]]

    rounds = list(next(iter(found.values()))[0])
    arms = [{"arm": arm, **{name: means(arm, name) for name in rounds},
             **{key: [run_[rounds[-1]][key]["mean"] for run_ in runs] for key in QUANTITIES}}
            for arm, runs in found.items()]  # fmt: skip
    differences = []
    for first, second in PAIRS:
        pairs = {name: zip(means(first, name), means(second, name), strict=True) for name in rounds[1:]}
        gaps = {name: [a - b for a, b in values] for name, values in pairs.items()}
        differences.append({"paired by seed": f"{first} - {second}", **gaps})
    return {"arms": arms, "differences": differences}


def curves(found: dict[str, list[dict]], reward: str) -> list[dict[str, Any]]:
    """The reward and the KL to the start after each round."""
    rows = []
    for title, of in ((reward, lambda policy: policy["rewards"][reward]), ("KL", lambda policy: policy["kl"])):
        for arm, runs in found.items():
            values = [[of(policy)["mean"] for policy in run_.values()] for run_ in runs]
            rows.append(pictures.curve(title, "round", title, arm, range(len(values[0])), values))
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
