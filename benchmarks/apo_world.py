"""Does momentum help? Five arms of three rounds on the tiny world, where the true reward is known, over several seeds.

    python benchmarks/apo_world.py                          # 5 seeds; about half an hour on 2 cores
    python benchmarks/apo_world.py seeds=3 plot=apo.svg stages.apo.loss=sppo
    python benchmarks/apo_world.py recipe=my.yaml reward=helpful seeds=2 inputs.pairs=...

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

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
from cells import cell

from trimtab.pipelines.algorithms.statistics import mean_stderr
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.scripts import train

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
    options = {"seeds": "5", "plot": "", "recipe": RECIPE, "reward": "gold"}
    given = dict(word.split("=", 1) for word in words)
    options |= {key: given.pop(key) for key in options if key in given}
    overrides = [f"{key}={value}" for key, value in given.items()]
    found: dict[str, list[dict]] = {arm: [] for arm in ARMS}
    for seed in range(int(options["seeds"])):
        for arm, own in ARMS.items():
            words = [f"seed={seed}", "wandb=false", *overrides, *own]
            found[arm].append(run(options["recipe"], words))
            say(found, options["reward"])
    if options["plot"]:
        plot(found, options["reward"], options["plot"])


def run(recipe: str, words: list[str]) -> dict:
    """The evaluation of one arm: policies by name."""
    if train.main([recipe, *words]):
        sys.exit(1)
    step = next(step for step in Recipe.load(recipe, words).steps if step.name == "evaluate")
    return json.loads((step.output / "evaluation.json").read_text())["policies"]


def say(found: dict[str, list[dict]], reward: str) -> None:
    """The table of what is there so far."""
    rounds = list(next(iter(found.values()))[0])
    count = min(len(runs) for runs in found.values())
    print(f"\n{reward} reward on held-out prompts, mean +- standard error over the seeds of each arm")
    print("  ".join([f"{'arm':10}", "seeds", *(f"{name:>16}" for name in rounds), f"{'KL':>14}", f"{'tokens':>14}"]))
    for arm, runs in found.items():
        if runs:
            cells = [cell([run_[name]["rewards"][reward]["mean"] for run_ in runs]) for name in rounds]
            cells += [cell([run_[rounds[-1]][key]["mean"] for run_ in runs], 1) for key in QUANTITIES]
            print("  ".join([f"{arm:10}", f"{len(runs):5}", *(f"{cell:>16}" for cell in cells)]))
    for first, second in PAIRS:
        for name in rounds[1:]:
            gaps = [a[name]["rewards"][reward]["mean"] - b[name]["rewards"][reward]["mean"]
                    for a, b in zip(found[first], found[second], strict=False)]  # fmt: skip
            if count > 1:
                mean, stderr = mean_stderr(gaps)
                sigmas = f" ({mean / stderr:+.1f} standard errors)" if stderr else ""
                print(f"{first} - {second}, {name}: {mean:+.4f} +- {stderr:.4f}{sigmas}")
    sys.stdout.flush()


def plot(found: dict[str, list[dict]], reward: str, path: str) -> None:
    """The reward after each round, one line with error bars for each arm."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    for arm, runs in found.items():
        rounds = list(runs[0])
        points = [mean_stderr([run_[name]["rewards"][reward]["mean"] for run_ in runs]) for name in rounds]
        axes.errorbar(range(len(rounds)), [p[0] for p in points], [p[1] for p in points], label=arm, capsize=2, lw=1.2)
    axes.set_xlabel("round")
    axes.set_ylabel(f"{reward} reward, held-out prompts")
    axes.set_xticks(range(len(rounds)))
    axes.legend(frameon=False)
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
