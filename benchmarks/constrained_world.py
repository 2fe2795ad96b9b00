"""Two reward models pushed too far on the tiny world, and held at thresholds: by every method, over several seeds.

    python benchmarks/constrained_world.py      # 5 seeds; an hour of a core; save=yes keeps the numbers
    python benchmarks/constrained_world.py seeds=2 stages.constrained.train.max_steps=60

Every seed has its own world, language model and reward models (recipes/tiny-constrained.yaml), which all arms share;
every arm takes the same number of steps and samples: the sum of both, unconstrained; that stopped at its best
validation step by the true reward; the sum with a tenth of the weight (the control); each method at the recipe's
thresholds; and xi with multipliers without a proportional term, as in the paper.

The first table has the true reward over the training of the unconstrained arms: its mean over the first steps, at its
peak and at the end (means over 5 steps, of 64 completions each), and the proxies at that peak. The second has the last
policy on 300 held-out prompts: the true reward, the proxies in standard deviations, and their distances from the
thresholds. Means over seeds with standard errors; differences are paired by seed. The curves of the steps become a
picture.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pictures
import recipe_runs
import stored_numbers

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import tracking

RECIPE = str(Path(__file__).resolve().parents[1] / "recipes" / "tiny-constrained.yaml")
STAGE = "stages.constrained."
ARMS = {
    "sum": ["method=fixed"],
    # stopped where the true reward is best on 40 of the training prompts, held out: what an oracle would do
    "sum, stopped": [
        "method=fixed",
        'data={path: $world/prompts, split: "train[:960]"}',
        'eval_data={path: $world/prompts, split: "train[960:]"}',
        "train.eval_strategy=steps",
        "train.eval_steps=5",
        "train.save_steps=5",
        "train.per_device_eval_batch_size=80",
        "train.load_best_model_at_end=true",
        "train.metric_for_best_model=rewards/gold/mean",
        "train.greater_is_better=true",
    ],
    "sum x 0.1": ["method=fixed", "rewards.coverage.weight=0.1", "rewards.politeness.weight=0.1"],
    "sat": ["method=sat"],
    "all": ["method=all"],
    "mu": ["method=mu"],
    "xi": ["method=xi"],
    "xi, not proportional": ["method=xi", "multipliers.proportional=0"],
}
PROXIES = ("coverage", "politeness")
BLOCK = 5  # steps


def main(words: list[str]) -> None:
    options = {"seeds": "5", "recipe": RECIPE, "save": "no"}
    given = dict(word.split("=", 1) for word in words)
    options |= {key: given.pop(key) for key in options if key in given}
    overrides = ["wandb=false", f"{STAGE}train.logging_steps=1", *(f"{key}={value}" for key, value in given.items())]
    values = Recipe.load(options["recipe"], overrides).document.values["stages"]["constrained"]["rewards"]
    thresholds = {name: values[name]["threshold"]["z"] for name in PROXIES}
    found: dict[str, list[dict]] = {name: [] for name in ARMS}
    for seed in range(int(options["seeds"])):
        for name, own in ARMS.items():
            arm = [f"seed={seed}", *overrides, *(STAGE + word for word in own)]
            found[name].append(run(options["recipe"], arm))
    seeds = f"{options['seeds']}, each with a world, a language model and reward models"
    recipe = (options["recipe"], ["seed=0", *overrides])
    told = {**tables(found, thresholds), "steps": curves(found)}
    stored_numbers.show("constrained-methods", told, seeds=seeds, recipe=recipe)


def run(recipe: str, words: list[str]) -> dict:
    """One arm: `policies` of the evaluation, and `series`, the mean rewards and multipliers of every step."""
    steps = recipe_runs.run(recipe, words)
    rows = [row for row in tracking.read(steps["constrained"].dir / "metrics.jsonl") if "train/loss" in row]
    names = [key for key in rows[0] if key.startswith(("train/rewards/", "train/multipliers/"))]
    series = {key.split("/", 1)[1].removesuffix("/mean"): [row[key] for row in rows] for key in names}
    return {"policies": recipe_runs.policies(steps["evaluate"]), "series": series}


def blocks(values: list[float]) -> list[float]:
    """Means over BLOCK steps."""
    return [sum(values[at : at + BLOCK]) / BLOCK for at in range(0, len(values) - BLOCK + 1, BLOCK)]


def tables(found: dict[str, list[dict]], thresholds: dict[str, float]) -> dict[str, list[dict[str, Any]]]:
    """The true reward while the proxies are pushed, and the last policies on held-out prompts."""
    pushed, last = [], []
    for name in ("sum", "sum x 0.1"):
        runs = [{key: blocks(values) for key, values in each["series"].items()} for each in found[name]]
        gold = [each["rewards/gold"] for each in runs]
        peaks = [max(range(len(each)), key=each.__getitem__) for each in gold]
        pushed.append({
            "pushed": name, "the first steps": [each[0] for each in gold], "at its peak": [max(each) for each in gold],
            "the last steps": [each[-1] for each in gold], "last - peak": [each[-1] - max(each) for each in gold],
            "peak at step": [float((at + 1) * BLOCK) for at in peaks],
            **{f"{proxy} there": [each[f"rewards/{proxy}"][at] for each, at in zip(runs, peaks, strict=True)]
               for proxy in PROXIES},
        })  # fmt: skip
    starts = [each["policies"]["sft"] for each in found["sum"]]
    of_arms = {name: [each["policies"]["constrained"] for each in runs] for name, runs in found.items()}
    for name, policies in {"the start": starts, **of_arms}.items():
        means = {reward: [policy["rewards"][reward]["mean"] for policy in policies] for reward in ("gold", *PROXIES)}
        less = {
            f"gold - {control}": [mean - policy["rewards"]["gold"]["mean"]
                                  for mean, policy in zip(means["gold"], of_arms[control], strict=True)]
            for control in ("sum", "sum x 0.1")
        }  # fmt: skip
        last.append({
            "arm": name, "gold": means["gold"], **less,
            **{proxy: means[proxy] for proxy in PROXIES},
            **{f"{proxy}, distance": [abs(mean - thresholds[proxy]) for mean in means[proxy]] for proxy in PROXIES},
            "KL": [policy["kl"]["mean"] for policy in policies],
            "tokens": [policy["length"]["mean"] for policy in policies],
        })  # fmt: skip
    return {"pushed": pushed, "last": last}


def curves(found: dict[str, list[dict]]) -> list[dict[str, Any]]:
    """The true reward and the proxies over the steps, of the methods at thresholds and of the sum."""
    rows = []
    for key, title in (("gold", "true reward"), *((proxy, f"{proxy} (sd)") for proxy in PROXIES)):
        for name in ("sum", "all", "sat", "mu", "xi"):
            runs = [blocks(run_["series"][f"rewards/{key}"]) for run_ in found[name]]
            steps = range(BLOCK, BLOCK * len(runs[0]) + 1, BLOCK)
            rows.append(pictures.curve(title, "step", title, name, steps, runs))
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
