"""Constrained RLHF with critics on DailyDialog, small: methods at thresholds found by proxy points, and NM-PPO.

    python benchmarks/dailydialog.py train=dialogues.train.jsonl test=dialogues.test.jsonl   # 1 1/2 hours, 2 cores
    python benchmarks/dailydialog.py ... seeds=1 steps=40 plot=runs/dailydialog.png
    python benchmarks/dailydialog.py ... save=yes                                            # keeps the numbers

`train` and `test` are files of dialogues with the columns `turns` (texts) and `act` (their intents, 1 to 4). A small
Llama is trained on the dialogues (`policy=` names one that is there), and the recipes of recipes/dailydialog run with
it, with larger steps than theirs: one step is 64 replies, learned once. The seeds are those of the training on
rewards; dialogues, language model and classifier are shared, as in the paper.

Printed are, for every arm, the metric over the training (means over the first steps, the best block and the last one),
on 1,000 held-out replies at the end, and the distances from the thresholds; then the steps that the search for
thresholds took in both ways.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import stored_numbers
import yaml

from trimtab.pipelines.algorithms.statistics import mean_stderr
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import tracking
from trimtab.scripts import train

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes" / "dailydialog"
REWARDS = ("meteor", "intent")
BLOCK = 10  # steps
FAR = {"meteor": 0.15, "intent": 0.65}  # how far the searches begin to look: above the start, and a guess
MODEL = {"model_type": "llama", "hidden_size": 160, "intermediate_size": 448, "num_hidden_layers": 3,
         "num_attention_heads": 5, "tie_word_embeddings": True}  # fmt: skip
TRAINING = {"gradient_checkpointing": False, "lr_scheduler_type": "cosine", "warmup_steps": 50,
            "per_device_train_batch_size": 32, "save_steps": 400, "save_total_limit": 2}  # fmt: skip
# what 64 replies of the small model come by: the metric's parts are scaled to these
RANGES = {"sacrebleu": [0.0, 0.05], "rouge_2": [0.0, 0.05], "bleu": [0.0, 0.03], "unique_3": [0.0, 6.0],
          "vocab_3": [0.0, 7.0], "longest": [0.2, 0.7]}  # fmt: skip
ARMS = {
    "fixed": ("mu", ["method=fixed", "rewards.meteor.weight=0.5"]),
    "sat": ("mu", ["method=sat", "rewards.meteor.weight=0.5"]),
    "all": ("all", []),
    "mu": ("mu", []),
    "xi": ("xi", []),
}


def main(words: list[str]) -> None:
    options = {"train": "", "test": "", "seeds": "3", "steps": "80", "plot": "", "output_dir": "runs", "policy": "",
               "searches": "nelder_mead,bayes", "save": "no"}  # fmt: skip
    given = dict(word.split("=", 1) for word in words)
    options |= {key: given.pop(key) for key in options if key in given}
    policy = options["policy"] or pretrain(options)
    small = overrides(policy, options, [f"{key}={value}" for key, value in given.items()])
    proxies = run("proxy-points", 0, [*small("proxy_points"), "stages.proxy_points.repeats=2"], stop="proxy_points")
    thresholds = json.loads((proxies["proxy_points"].output / "thresholds.json").read_text())
    print((proxies["proxy_points"].output / "summary.txt").read_text())
    held = [f"rewards.{name}.threshold={value}" for name, value in thresholds.items()]
    found: dict[str, list[dict]] = {name: [] for name in [*ARMS, *options["searches"].split(",")]}
    for seed in range(int(options["seeds"])):
        for name, (recipe, own) in ARMS.items():
            own = [f"stages.constrained.{word}" for word in [*held, *own]]
            found[name].append(read(run(recipe, seed, [*small("constrained"), *own])))
        for search in options["searches"].split(","):
            steps = 2 * int(options["steps"])
            settings = [
                f"thresholds.search={search}",
                f"thresholds.patience={steps // 10}",
                f"train.max_steps={steps}",
            ]
            far = [f"rewards.{name}.threshold={value}" for name, value in FAR.items()]
            own = [f"stages.constrained.{word}" for word in [*settings, *far]]
            found[search].append(read(run("nm", seed, [*small("constrained"), *own])))
    named = f"{options['seeds']} of the training on rewards; dialogues, language model and classifier are shared"
    stored_numbers.show("dialogue-task", tables(found, thresholds, proxies, int(options["steps"])), seeds=named)
    if options["plot"]:
        plot(found, thresholds, options["plot"])


def pretrain(options: dict[str, str]) -> str:
    """The folder of a small language model of dialogues, in the place of GPT-2."""
    stages = {
        "dialogues": {"data": options["train"], "turns": "turns", "max_words": 90},
        "scratch": {"corpus": "$dialogues/replies", "vocab_size": 3000, "max_length": 512, "config": MODEL},
        "pretrain": {"kind": "sft", "model": {"model_name_or_path": "$scratch"}, "data": "$dialogues/replies",
                     "train": {**TRAINING, "learning_rate": 3e-3, "num_train_epochs": 1.2, "max_length": 256,
                               "completion_only_loss": False}},
    }  # fmt: skip
    folder = Path(options["output_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "dailydialog-pretrain.yaml"
    path.write_text(yaml.safe_dump({"output_dir": str(folder), "wandb": False, "stages": stages}, sort_keys=False))
    if train.main([str(path)]):
        sys.exit(1)
    return str(folder / path.stem / "pretrain" / "output")


def overrides(policy: str, options: dict[str, str], given: list[str]) -> Callable[[str], list[str]]:
    """What makes of a recipe a run of the small model: its words, by the name of the stage that trains on rewards.

    All recipes get one name, and so share the steps before that stage.
    """

    def words(stage: str) -> list[str]:
        path = f"stages.{stage}."
        metric = "metric" if stage == "proxy_points" else "rewards.metric"
        training = {
            "per_device_train_batch_size": 64, "per_device_eval_batch_size": 256, "steps_per_generation": 1,
            "num_iterations": 1, "learning_rate": 3e-4, "max_steps": options["steps"], "logging_steps": 1,
            "gradient_checkpointing": "false", "save_steps": 50, "max_grad_norm": 1.0,
        }  # fmt: skip
        calmer = ["stages.constrained.multipliers={learning_rate: 0.03, proportional: 0.3}"]
        return [
            "wandb=false", "name=dailydialog-small", f"output_dir={options['output_dir']}",
            f"inputs.policy={policy}", f"inputs.encoder={policy}",
            f"stages.dialogues.data={options['train']}", "stages.dialogues.turns=turns",
            f"stages.held_out.data={options['test']}", "stages.held_out.turns=turns",
            "stages.dialogues.max_words=40", "stages.held_out.max_words=40",
            *(f"stages.sft.train.{key}={json.dumps(value)}" for key, value in
              {**TRAINING, "learning_rate": 3e-4, "num_train_epochs": 0.2}.items()),
            *(f"stages.intent.train.{key}={json.dumps(value)}" for key, value in
              {**TRAINING, "learning_rate": 1e-3, "num_train_epochs": 0.5, "max_length": 64}.items()),
            f"{path}critics.learning_rate=3e-4", f"{path}critics.scale_kl=false",
            f"{path}{metric}.ranges={json.dumps(RANGES)}",
            *(f"{path}train.{key}={value}" for key, value in training.items()),
            *(calmer if stage == "constrained" else []),
            f"stages.evaluate.rewards.metric.ranges={json.dumps(RANGES)}", *given,
        ]  # fmt: skip

    return words


def run(recipe: str, seed: int, words: list[str], stop: str | None = None):
    path, words = str(RECIPES / f"{recipe}.yaml"), [f"stages.constrained.seed={seed}", *words]
    stages = [step.stage for step in Recipe.load(path, words).steps]
    for stage in dict.fromkeys(stages[: stages.index(stop) + 1 + stages.count(stop)] if stop else stages):
        if train.main([path, *words, "--stage", stage]):
            sys.exit(1)
        if stage == stop:
            break
    return {step.name: step for step in Recipe.load(path, words).steps}


def read(steps) -> dict:
    rows = [row for row in tracking.read(steps["constrained"].dir / "metrics.jsonl") if "train/loss" in row]
    names = [key for key in rows[0] if key.startswith(("train/rewards/", "train/multipliers/", "train/kl"))]
    series = {key.split("/", 1)[1].removesuffix("/mean"): [row[key] for row in rows] for key in names}
    policies = json.loads((steps["evaluate"].output / "evaluation.json").read_text())["policies"]
    search = steps["constrained"].output / "search.json"
    return {
        "series": series,
        "policies": policies,
        "search": json.loads(search.read_text()) if search.exists() else None,
    }


def blocks(values: list[float]) -> list[float]:
    """Means over BLOCK steps."""
    return [sum(values[at : at + BLOCK]) / BLOCK for at in range(0, len(values) - BLOCK + 1, BLOCK)]


Rows = list[dict[str, Any]]


def tables(found: dict[str, list[dict]], thresholds: dict[str, float], proxies: Any, steps: int) -> dict[str, Rows]:
    """Every arm in training and on held-out replies, and what the thresholds cost that were found."""
    start = [run_["policies"]["sft"] for run_ in found["xi"]]
    arms: Rows = [{
        "arm": "the start", "metric, the first steps": "", "the best": "", "the last": "",
        "held out": [policy["rewards"]["metric"]["mean"] for policy in start],
        **{reward: [policy["rewards"][reward]["mean"] for policy in start] for reward in REWARDS},
        **{f"{reward}, distance": "" for reward in REWARDS}, "KL": "", "tokens": "",
    }]  # fmt: skip
    for name, runs in found.items():
        metric = [blocks(run_["series"]["rewards/metric"]) for run_ in runs]
        last = [run_["policies"]["constrained"] for run_ in runs]
        held = {reward: [policy["rewards"][reward]["mean"] for policy in last] for reward in ("metric", *REWARDS)}
        wanted = [run_["search"]["thresholds"] if run_["search"] else thresholds for run_ in runs]
        distances = {
            f"{reward}, distance": [abs(mean - at[reward]) for mean, at in zip(held[reward], wanted, strict=True)]
            for reward in REWARDS
        }
        arms.append({
            "arm": name, "metric, the first steps": [path[0] for path in metric],
            "the best": [max(path) for path in metric], "the last": [path[-1] for path in metric],
            "held out": held["metric"], **{reward: held[reward] for reward in REWARDS}, **distances,
            "KL": [policy["kl"]["mean"] for policy in last], "tokens": [policy["length"]["mean"] for policy in last],
        })  # fmt: skip
    swept = sum(1 for name in proxies if name.startswith("proxy_points-")) * steps
    searches: Rows = [{"thresholds by": "proxy points", "steps, policy included": swept + steps, "points": "",
                       **{reward: thresholds[reward] for reward in REWARDS}}]  # fmt: skip
    for name in [name for name in found if name not in ARMS]:
        ended = [run_["search"] for run_ in found[name]]
        points = [float(sum(not point["reused"] for point in search["history"])) for search in ended]
        reached = {reward: [search["thresholds"][reward] for search in ended] for reward in REWARDS}
        searches.append({"thresholds by": name, "steps, policy included": 2 * steps, "points": points, **reached})
    return {"arms": arms, "searches": searches}


def plot(found: dict[str, list[dict]], thresholds: dict[str, float], path: str) -> None:
    """The metric, the rewards and the multipliers over the steps, means over seeds with their standard errors."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def curve(axis, name: str, key: str, **style) -> None:
        values = [blocks(each["series"][key]) for each in found[name] if key in each["series"]]
        pairs = [mean_stderr(list(at)) for at in zip(*values, strict=True)]
        steps = [BLOCK * (at + 1) for at in range(len(pairs))]
        colour = f"C{list(found).index(name)}"
        axis.plot(steps, [mean for mean, _ in pairs], label=name, lw=1.1, color=colour, **style)
        if len(values) > 1:
            axis.fill_between(steps, [m - e for m, e in pairs], [m + e for m, e in pairs], alpha=0.15,
                              color=colour, lw=0)  # fmt: skip

    figure, axes = pyplot.subplots(2, 3, figsize=(11, 5.8), layout="constrained")
    for axis, key in zip(axes[0], ("metric", *REWARDS), strict=True):
        for name in ("fixed", "sat", "all", "mu", "xi"):
            curve(axis, name, f"rewards/{key}")
        axis.set(xlabel="step", ylabel=key)
        if key in thresholds:
            axis.axhline(thresholds[key], color="0.5", lw=0.8, ls="--")
    for axis, key in zip(axes[1][:2], REWARDS, strict=True):
        for name in ("all", "mu", "xi"):
            curve(axis, name, f"multipliers/{key}")
        axis.set(xlabel="step", ylabel=f"multiplier of {key}")
    for name in found.keys() - ARMS.keys():
        curve(axes[1][2], name, "rewards/metric")
    axes[1][2].set(xlabel="step", ylabel="metric while thresholds are searched for")
    for axis in (axes[0][0], axes[1][0], axes[1][2]):
        axis.legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
