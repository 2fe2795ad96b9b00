"""Optimizers beside AdamW, each at its best of three rates: loss on held-out rows, what they keep, what a step takes.

    python benchmarks/optimizers.py                       # 5 seeds; 15 minutes of a core
    python benchmarks/optimizers.py seeds=0,1 kinds=sft,dpo text=rows.jsonl
    python benchmarks/optimizers.py seeds=                # only what a step takes, half a minute

The tiny world, by seed: sft of a random model, then a reward model, dpo, and a reward model of adapters on what AdamW
has made of it; with `text`, sft of a random model on the rows of a file, too. All have 80 steps of 16 rows, 10 of them
of warm-up, linear decay (schedule-free: none) and a weight decay of 0.01 (Lion: 0.03). FRUGAL draws columns every 20
steps, with signs at the whole rate from scratch and at a tenth of it after. M-FAC keeps 64 gradients, of adapters
alone. Printed are the losses, means over seeds with standard errors, at each rate and at the best one (chosen by the
mean over seeds), the difference to AdamW's best, paired by seed, and the bytes of the optimizer's state in the
checkpoint, in units of AdamW's. `*` marks a best rate at an end of the three: a better one may lie beyond.

Then, in turns and in processor seconds, what a step of each optimizer takes of the matrices of four blocks of width
512, in units of AdamW's: the median of the rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import torch
import yaml
from cells import cell

from trimtab.pipelines.planning import kinds, optimizer_blocks
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.scripts import train

FOLDER = Path("runs")
CONFIG = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
          "num_attention_heads": 4, "initializer_range": 0.05, "tie_word_embeddings": True}  # fmt: skip
FRUGAL = {"class": "frugal", "split": "columns", "update_gap": 20}
FACTORED = {"class": "m_fac", "gradients": 64, "damp": 1e-4}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "AdamW": {"class": "torch.optim.AdamW"},
    "Lion": {"class": "pytorch_optimizer.Lion"},
    "FRUGAL 0": {**FRUGAL, "density": 0.0},
    "FRUGAL 0.25": {**FRUGAL, "density": 0.25},
    "FRUGAL 1": {**FRUGAL, "density": 1.0},
    "schedule-free": {"class": "pytorch_optimizer.ScheduleFreeAdamW"},
}
OF_ADAPTERS = {"AdamW": OPTIMIZERS["AdamW"], "M-FAC": FACTORED}
LOWER = (4e-3, 8e-3, 1.6e-2)
SCRATCH = {"AdamW": (8e-3, 1.6e-2, 3.2e-2), "Lion": (2e-3, 4e-3, 8e-3), "FRUGAL 0": LOWER, "FRUGAL 0.25": LOWER,
           "FRUGAL 1": LOWER, "schedule-free": LOWER}  # fmt: skip
AFTER = {"AdamW": (1e-3, 3e-3, 1e-2), "Lion": (1e-4, 3e-4, 1e-3)}  # what is not named has AdamW's
RATES: dict[str, dict[str, tuple[float, ...]]] = {
    "sft": SCRATCH,
    "reward": AFTER,
    "dpo": {"AdamW": (2e-4, 5e-4, 1e-3), "Lion": (2e-5, 5e-5, 1e-4)},
    "adapters": {"AdamW": (1e-3, 3e-3, 1e-2), "M-FAC": (1e-4, 3e-4, 1e-3)},
    "text": SCRATCH,
}
BLOCK = [(512, 512)] * 4 + [(1536, 512)] * 2 + [(512, 1536)]
STEPS = 80
ROUNDS, STEPS_OF_ROUND = 5, 3


def main(words: list[str]) -> None:
    given = dict(word.split("=", 1) for word in words)
    seeds, text = [seed for seed in given.pop("seeds", "0,1,2,3,4").split(",") if seed], given.pop("text", None)
    chosen = given.pop("kinds", "sft,reward,dpo,adapters").split(",") + (["text"] if text else [])
    overrides = [f"{key}={value}" for key, value in given.items()]
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "optimizers.yaml"
    recipe = {"name": "optimizers", "wandb": False, "stages": stages(chosen, text)}
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    losses: dict[str, list[float]] = {}
    kept: dict[str, int] = {}
    for seed in seeds:
        of_seed = [f"seed={seed}", *overrides]
        if train.main([str(path), *of_seed]):
            sys.exit(1)
        for step in Recipe.load(str(path), of_seed).steps:
            if step.name.partition("-")[0] in RATES and "optimizer" in step.options:
                record = artifacts.read_done(step.dir)
                assert record is not None
                losses.setdefault(step.name, []).append(record["metrics"]["eval/loss"])
                kept[step.name] = state_bytes(step.dir / "checkpoints")
        say(chosen, losses, kept)
    say_steps()


def stages(chosen: list[str], text: str | None) -> dict[str, Any]:
    """Every optimizer at every rate, for each kind."""
    config = {"tokenizer": "word", "config": CONFIG}
    blocks: dict[str, Any] = {"world": {"sft": 2400}, "scratch": {"corpus": "$world/sft", **config}}
    begun = {**training("$world/sft"), "kind": "sft", "model": {"model_name_or_path": "$scratch"}}
    blocks["begun"] = {**begun, "train": {**begun["train"], "learning_rate": 8e-3}}
    if text:
        blocks["letters"] = {"kind": "scratch", "corpus": text, "vocab_size": 1000, "config": CONFIG}
    for kind in chosen:
        rows = {"sft": "$world/sft", "text": text}.get(kind, "$world/gold")
        model: dict[str, Any] = {
            "sft": {"model_name_or_path": "$scratch"},
            "text": {"model_name_or_path": "$letters"},
        }.get(kind, {"model_name_or_path": "$begun"})
        if kind == "adapters":
            model |= {"use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear"}
        word = {"text": "sft", "adapters": "reward"}.get(kind, kind)
        for optimizer, keys in of_kind(kind).items():
            for number, rate in enumerate(rates(kind, optimizer)):
                block = {**training(rows), "kind": word, "model": model, "optimizer": dict(keys)}
                block["train"] |= {"learning_rate": rate}
                if optimizer.startswith("FRUGAL") and kind not in ("sft", "text"):
                    block["optimizer"]["inactive_lr_scale"] = 0.1
                block["train"] |= {"weight_decay": 0.03} if optimizer == "Lion" else {}
                block["train"] |= {"lr_scheduler_type": "constant_with_warmup"} if optimizer == "schedule-free" else {}
                blocks[name(kind, optimizer, number)] = block
    return blocks


def training(rows: Any) -> dict[str, Any]:
    """The rows and settings that all have."""
    batch = {"per_device_train_batch_size": 16, "per_device_eval_batch_size": 50, "gradient_checkpointing": False}
    batch |= {"max_steps": STEPS, "logging_steps": 20, "save_steps": STEPS, "warmup_steps": 10}
    batch |= {"lr_scheduler_type": "linear", "weight_decay": 0.01}
    if isinstance(rows, str) and not rows.startswith("$"):
        return {"data": {"path": rows, "eval_fraction": 0.1}, "train": {**batch, "max_length": 128}}
    return {"data": rows, "eval_data": {"path": rows, "split": "test"}, "train": batch}


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    """The optimizers of a kind. FRUGAL at density 1 is AdamW, which one kind is enough to show."""
    if kind == "adapters":
        return OF_ADAPTERS
    return {label: keys for label, keys in OPTIMIZERS.items() if label != "FRUGAL 1" or kind == "sft"}


def rates(kind: str, optimizer: str) -> tuple[float, ...]:
    return RATES[kind].get(optimizer, RATES[kind]["AdamW"])


def name(kind: str, optimizer: str, number: int) -> str:
    return f"{kind}-{optimizer.replace(' ', '-').replace('.', '')}-{number}"


def state_bytes(checkpoints: Path) -> int:
    """The bytes of the tensors of an optimizer's state, in the newest checkpoint."""
    file = max(checkpoints.glob("*/optimizer.pt"), key=lambda file: file.stat().st_mtime)
    states = torch.load(file, weights_only=True)["state"].values()
    tensors = [entry for state in states for entry in state.values() if torch.is_tensor(entry)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def say(chosen: list[str], losses: dict[str, list[float]], kept: dict[str, int]) -> None:
    for kind in chosen:
        count = len(losses[name(kind, "AdamW", 0)])
        print(f"\n{kind}: loss on held-out rows, {count} seeds, at each of three rates")
        columns = "".join(f"{head:>20}" for head in ("lowest", "middle", "highest"))
        print(f"{'optimizer':14}{columns}{'best rate':>12}{'best - AdamW':>22}{'state':>8}")
        best: dict[str, list[float]] = {}
        for optimizer in of_kind(kind):
            tried = rates(kind, optimizer)
            runs = [losses[name(kind, optimizer, number)] for number in range(len(tried))]
            best[optimizer] = min(runs, key=sum)
            number = runs.index(best[optimizer])
            gaps = [a - b for a, b in zip(best[optimizer], best["AdamW"], strict=True)]
            state = kept[name(kind, optimizer, 0)] / kept[name(kind, "AdamW", 0)]
            rate = f"{tried[number]:g}" + ("" if number == 1 else "*")
            cells = "".join(f"{cell(run, 4):>20}" for run in runs)
            print(f"{optimizer:14}{cells}{rate:>12}{cell(gaps, 4):>22}{state:8.2f}")
    sys.stdout.flush()


def say_steps() -> None:
    """What a step takes, in units of AdamW's, all in turns."""
    drawn = torch.Generator().manual_seed(0)
    shapes = [(f"layers.{layer}.{number}.weight", shape) for layer in range(4) for number, shape in enumerate(BLOCK)]
    optimizers = {}
    for label, block in OPTIMIZERS.items():
        values = [torch.nn.Parameter(torch.randn(shape, generator=drawn)) for _, shape in shapes]
        cls = kinds.find(kinds.OPTIMIZERS, block["class"])
        groups = [{"params": values, "weight_decay": 0.01}]
        if hasattr(cls, "grouped"):
            groups = cls.grouped(groups, dict(zip(values, (word for word, _ in shapes), strict=True)))
        optimizer = cls(groups, lr=1e-3, **optimizer_blocks.keys_of(block))
        if callable(getattr(optimizer, "train", None)):
            optimizer.train()
        for value in values:
            value.grad = torch.randn(value.shape, generator=drawn)
        optimizers[label] = optimizer
    taken: dict[str, list[float]] = {label: [] for label in optimizers}
    for _ in range(ROUNDS + 1):  # the first makes the states
        for label, optimizer in optimizers.items():
            begun = time.process_time()
            for _ in range(STEPS_OF_ROUND):
                optimizer.step()
            taken[label].append(time.process_time() - begun)
    size = sum(rows * columns for _, (rows, columns) in shapes)
    print(f"\na step of {size:,} weights, in units of AdamW's: median of {ROUNDS} rounds in turns, lowest and highest")
    for label, seconds in taken.items():
        shares = [ours / theirs for ours, theirs in zip(seconds[1:], taken["AdamW"][1:], strict=True)]
        print(f"{label:14}{statistics.median(shares):8.2f}   ({min(shares):.2f} to {max(shares):.2f})")


if __name__ == "__main__":
    main(sys.argv[1:])
