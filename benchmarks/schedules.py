"""Learning rates refined by gradient norms, beside linear decay, cosine and a constant, each at its best rate.

    python benchmarks/schedules.py           # 5 seeds; about an hour on one core; save=yes keeps the numbers
    python benchmarks/schedules.py seeds=2 stages.world.sft=1000

The tiny world, by seed: sft of a random model, then a reward model of what linear decay has made of it. Every schedule
is tried at three peak rates; those with a warm-up have 10 steps of it. The refined ones, with weights 1 / norm (l1)
and 1 / norm^2 (l2), are made of the norms that the linear run at the same rate had: they have cost two
trainings. Printed are the losses on held-out rows, means over seeds with standard errors, at each rate and at the best
one of a schedule (chosen by the mean over seeds), with the difference to linear decay's best, paired by seed. Then the
shape of the refined schedules: the share of the training at which they are largest.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import stored_numbers
import yaml

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts, tracking
from trimtab.scripts import train

FOLDER = Path("runs")
CONFIG = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
          "num_attention_heads": 4, "initializer_range": 0.05, "tie_word_embeddings": True}  # fmt: skip
OF_TRL = {
    "linear": {"lr_scheduler_type": "linear"},
    "linear, warm-up": {"lr_scheduler_type": "linear", "warmup_steps": 10},
    "cosine, warm-up": {"lr_scheduler_type": "cosine", "warmup_steps": 10},
    "constant": {"lr_scheduler_type": "constant"},
}
REFINED = ("refined l1", "refined l2")
RATES = {"sft": (2e-3, 4e-3, 8e-3), "reward": (3e-4, 1e-3, 3e-3)}


def main(words: list[str]) -> None:
    given = dict(word.split("=", 1) for word in words)
    seeds = int(given.pop("seeds", 5))
    given.pop("save", None)
    overrides = [f"{key}={value}" for key, value in given.items()]
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "schedules.yaml"
    path.write_text(yaml.safe_dump({"name": "schedules", "wandb": False, "stages": stages()}, sort_keys=False))
    losses: dict[str, list[float]] = {}
    peaks: dict[str, list[float]] = {}
    for seed in range(seeds):
        of_seed = [f"seed={seed}", *overrides]
        if train.main([str(path), *of_seed]):
            sys.exit(1)
        for step in Recipe.load(str(path), of_seed).steps:
            if step.kind in RATES:
                record = artifacts.read_done(step.dir)
                assert record is not None
                losses.setdefault(step.name, []).append(record["metrics"]["eval/loss"])
                if "schedule" in step.options:
                    peaks.setdefault(step.name, []).append(peak(step.dir / "metrics.jsonl"))
    named = f"{seeds}, each a world and a model"
    stored_numbers.show("refined-schedules", tables(losses, peaks), seeds=named)


def stages() -> dict[str, Any]:
    """Every schedule at every rate, for both kinds."""
    blocks: dict[str, Any] = {
        "world": {"sft": 2400},
        "scratch": {"corpus": "$world/sft", "tokenizer": "word", "config": CONFIG},
    }
    batch = {"per_device_train_batch_size": 16, "per_device_eval_batch_size": 50, "gradient_checkpointing": False}
    batch |= {"num_train_epochs": 1, "logging_steps": 1, "save_strategy": "no"}
    for kind, model, rows in (
        ("sft", "$scratch", "$world/sft"),
        ("reward", f"${name('sft', 'linear', 1)}", "$world/gold"),
    ):
        common = {"kind": kind, "model": {"model_name_or_path": model}, "data": rows,
                  "eval_data": {"path": rows, "split": "test"}}  # fmt: skip
        for number, rate in enumerate(RATES[kind]):
            for schedule, keys in OF_TRL.items():
                blocks[name(kind, schedule, number)] = {**common, "train": {**batch, "learning_rate": rate, **keys}}
            for schedule in REFINED:
                refine = {"refine": f"${name(kind, 'linear', number)}", "weights": schedule[-2:]}
                training = {**batch, "learning_rate": rate}
                blocks[name(kind, schedule, number)] = {**common, "train": training, "schedule": refine}
    return blocks


def name(kind: str, schedule: str, number: int) -> str:
    return f"{kind}-{schedule.replace(', ', '-').replace(' ', '-')}-{number}"


def peak(path: Path) -> float:
    """The share of a training at which its learning rate is largest."""
    rates = {row["step"]: row["schedule/refined"] for row in tracking.read(path) if "schedule/refined" in row}
    return max(rates, key=rates.__getitem__) / max(rates)


def tables(losses: dict[str, list[float]], peaks: dict[str, list[float]]) -> dict[str, list[dict[str, Any]]]:
    """Of each kind held-out losses by rate, the best less linear decay's best, and where rates are largest."""
    of_kinds = {}
    for kind, rates in RATES.items():
        best: dict[str, list[float]] = {}
        rows: list[dict[str, Any]] = []
        for schedule in (*OF_TRL, *REFINED):
            runs = [losses[name(kind, schedule, number)] for number in range(len(rates))]
            best[schedule] = min(runs, key=sum)
            gaps = [a - b for a, b in zip(best[schedule], best["linear"], strict=True)]
            largest = [peaks.get(name(kind, schedule, number), []) for number in range(len(rates))]
            rows.append({
                "schedule": schedule,
                **{f"rate {rate:g}": run for rate, run in zip(rates, runs, strict=True)},
                "best - linear": gaps if schedule != "linear" else "",
                "largest at": [share for shares in largest for share in shares] or "",
            })  # fmt: skip
        of_kinds[kind] = rows
    return of_kinds


if __name__ == "__main__":
    main(sys.argv[1:])
