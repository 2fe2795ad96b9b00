"""Optimizers beside AdamW, each at its best of three rates: loss on held-out rows, what they keep, what a step takes.

    python benchmarks/optimizers.py                       # 5 seeds; 40 minutes of a core
    python benchmarks/optimizers.py seeds=0,1 kinds=sft,dpo
    python benchmarks/optimizers.py text=rows.jsonl base=FOLDER   # real text, on a model that exists
    python benchmarks/optimizers.py seeds=                # only what a step takes, half a minute

The tiny world, by seed: sft of a random model, then a reward model, dpo, and a reward model of adapters and a head,
and of a head alone, on what AdamW has made of it; with `text` and `base`, sft of that model on the rows of a file,
too. All have 80 steps of 16 rows, 10 of them of warm-up, linear decay ("constant" and schedule-free: none) and a
weight decay of 0.01 (Lion: 0.03). FRUGAL draws columns every 20 steps, with signs at the whole rate from scratch and
at a tenth of it after. M-FAC keeps 64 gradients, and is for adapters and heads. Printed are the losses, means over
seeds with standard errors, at each rate and at the best one (chosen by the mean over seeds), the differences to the
best of AdamW and of AdamW at a constant rate, paired by seed, and the bytes of the optimizer's state in the
checkpoint, in units of AdamW's. `*` marks a best rate at an end of the three: a better one may lie beyond.

Then, in turns and in processor seconds, what a step of each optimizer takes of the matrices of four blocks of width
512, in units of AdamW's: the median of the rounds.

What is trained stays trained: stopped, the same command goes on. `save=yes` stores the numbers.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import stored_numbers
import torch
import yaml

from trimtab.pipelines.planning import kinds, optimizer_blocks
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.scripts import train

FOLDER = Path("runs")
CODE = ["benchmarks/optimizers.py", "pipelines/algorithms/optimizers/frugal.py",
        "pipelines/algorithms/optimizers/m_fac.py"]  # fmt: skip
CONFIG = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
          "num_attention_heads": 4, "initializer_range": 0.05, "tie_word_embeddings": True}  # fmt: skip
ADAMW, CONSTANT, FREE = "AdamW", "AdamW, constant", "schedule-free"
FRUGAL = {"class": "frugal", "split": "columns", "update_gap": 20}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    ADAMW: {"class": "torch.optim.AdamW"},
    CONSTANT: {"class": "torch.optim.AdamW"},
    "Lion": {"class": "pytorch_optimizer.Lion"},
    "FRUGAL 0": {**FRUGAL, "density": 0.0},
    "FRUGAL 0.25": {**FRUGAL, "density": 0.25},
    "FRUGAL 1": {**FRUGAL, "density": 1.0},
    FREE: {"class": "pytorch_optimizer.ScheduleFreeAdamW"},
    "M-FAC": {"class": "m_fac", "gradients": 64, "damp": 1e-4},
}
KINDS = {"sft": "sft", "reward": "reward", "dpo": "dpo", "adapters": "reward", "head": "reward", "text": "sft"}
ADAPTERS: dict[str, dict[str, Any]] = {
    "adapters": {"use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear"},
    "head": {"use_peft": True, "lora_target_modules": ["dummy-target-modules"]},  # peft's word for none
}
SLOWEST, SLOW, MIDDLE = (1e-4, 3e-4, 1e-3), (3e-4, 1e-3, 3e-3), (1e-3, 3e-3, 1e-2)
FAST, FASTEST = (3e-3, 1e-2, 3e-2), (1e-2, 3e-2, 1e-1)
LOWER = (4e-3, 8e-3, 1.6e-2)
RATES: dict[str, dict[str, tuple[float, ...]]] = {  # what is not named has AdamW's
    "sft": {
        ADAMW: (8e-3, 1.6e-2, 3.2e-2),
        **dict.fromkeys((CONSTANT, "Lion", "FRUGAL 0", "FRUGAL 0.25", FREE), LOWER),
    },
    "reward": {ADAMW: MIDDLE, CONSTANT: SLOW, "Lion": SLOW, "FRUGAL 0": FAST, "FRUGAL 0.25": SLOW},
    "dpo": {ADAMW: MIDDLE, CONSTANT: SLOW, "Lion": SLOWEST, "FRUGAL 0": FAST},
    "adapters": {ADAMW: SLOW, "M-FAC": SLOWEST},
    "head": {ADAMW: (1e-1, 3e-1, 1.0), CONSTANT: (3e-2, 1e-1, 3e-1), "M-FAC": MIDDLE},
    "text": {ADAMW: MIDDLE, "Lion": MIDDLE, "FRUGAL 0": FASTEST, "FRUGAL 0.25": FAST},
}
COLUMNS = ("lowest rate", "middle", "highest")
BLOCK = [(512, 512)] * 4 + [(1536, 512)] * 2 + [(512, 1536)]
STEPS = 80
ROUNDS, STEPS_OF_ROUND = 5, 3


def main(words: list[str]) -> None:
    given = dict(word.split("=", 1) for word in words)
    seeds = [seed for seed in given.pop("seeds", "0,1,2,3,4").split(",") if seed]
    text, base, save = given.pop("text", None), given.pop("base", None), given.pop("save", None) == "yes"
    chosen = [kind for kind in given.pop("kinds", "sft,reward,dpo,adapters").split(",") if kind]
    chosen += ["text"] if text else []
    overrides = [f"{key}={value}" for key, value in given.items()]
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "optimizers.yaml"
    recipe = {"name": "optimizers", "wandb": False, "stages": stages(chosen, text, base)}
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    losses: dict[str, list[float]] = {}
    kept: dict[str, int] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
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
        tables = {kind: compared(kind, losses, kept) for kind in chosen}
        for kind, rows in tables.items():
            print(f"\n{kind}: loss on held-out rows, {len(rows[0][COLUMNS[0]])} seeds")
            print(stored_numbers.table({"tables": {kind: rows}}, kind), flush=True)
    tables["steps"] = step_seconds()
    print("a step in processor seconds, in units of AdamW's: median of rounds in turns, lowest and highest")
    print(stored_numbers.table({"tables": tables}, "steps"))
    if save:
        stored_numbers.store(
            "-".join(["optimizers", *chosen]), tables, seeds=f"{len(seeds)} ({', '.join(seeds)})", code=CODE
        )


def stages(chosen: list[str], text: str | None, base: str | None) -> dict[str, Any]:
    """Every optimizer at every rate, for each kind."""
    blocks: dict[str, Any] = {"world": {"sft": 2400}}
    blocks["scratch"] = {"corpus": "$world/sft", "tokenizer": "word", "config": CONFIG}
    begun = {**training("$world/sft"), "kind": "sft", "model": {"model_name_or_path": "$scratch"}}
    blocks["begun"] = {**begun, "train": {**begun["train"], "learning_rate": 8e-3}}
    for kind in chosen:
        rows = {"sft": "$world/sft", "text": text}.get(kind, "$world/gold")
        model: dict[str, Any] = {"model_name_or_path": {"sft": "$scratch", "text": base}.get(kind, "$begun")}
        model |= ADAPTERS.get(kind, {})
        for optimizer in of_kind(kind):
            for number, rate in enumerate(rates(kind, optimizer)):
                keys = dict(OPTIMIZERS[optimizer])
                block = {**training(rows), "kind": KINDS[kind], "model": model, "optimizer": keys}
                block["train"] |= {"learning_rate": rate}
                if optimizer.startswith("FRUGAL") and kind != "sft":
                    keys["inactive_lr_scale"] = 0.1
                block["train"] |= {"weight_decay": 0.03} if optimizer == "Lion" else {}
                flat = optimizer in (CONSTANT, FREE)
                block["train"] |= {"lr_scheduler_type": "constant_with_warmup"} if flat else {}
                blocks[name(kind, optimizer, number)] = block
    return blocks


def training(rows: Any) -> dict[str, Any]:
    """The rows and settings that all have."""
    batch = {"per_device_train_batch_size": 16, "per_device_eval_batch_size": 50, "gradient_checkpointing": False}
    batch |= {"max_steps": STEPS, "logging_steps": 20, "save_steps": STEPS, "warmup_steps": 10}
    batch |= {"lr_scheduler_type": "linear", "weight_decay": 0.01}
    if not rows.startswith("$"):
        block: dict[str, Any] = {"data": {"path": rows, "eval_fraction": 0.1}, "train": {**batch, "max_length": 64}}
        return {**block, "audit": {"endless": "warn"}}  # the beginnings of texts are enough
    return {"data": rows, "eval_data": {"path": rows, "split": "test"}, "train": batch}


def of_kind(kind: str) -> list[str]:
    """The optimizers of a kind. FRUGAL at density 1 is AdamW, which one kind is enough to show."""
    if kind in ADAPTERS:
        return [ADAMW, CONSTANT, "M-FAC"]
    return [
        optimizer for optimizer in OPTIMIZERS if optimizer != "M-FAC" and (optimizer != "FRUGAL 1" or kind == "sft")
    ]


def rates(kind: str, optimizer: str) -> tuple[float, ...]:
    return RATES[kind].get(optimizer, RATES[kind][ADAMW])


def name(kind: str, optimizer: str, number: int) -> str:
    return f"{kind}-{optimizer.replace(', ', '-').replace(' ', '-').replace('.', '')}-{number}"


def state_bytes(checkpoints: Path) -> int:
    """The bytes of the tensors of an optimizer's state, in the newest checkpoint."""
    file = max(checkpoints.glob("*/optimizer.pt"), key=lambda file: file.stat().st_mtime)
    states = torch.load(file, weights_only=True)["state"].values()
    tensors = [entry for state in states for entry in state.values() if torch.is_tensor(entry)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def compared(kind: str, losses: dict[str, list[float]], kept: dict[str, int]) -> list[dict[str, Any]]:
    """A row for each optimizer: its losses by seed at each rate, and at its best rate less those of AdamW."""
    runs = {optimizer: [losses[name(kind, optimizer, number)] for number in range(3)] for optimizer in of_kind(kind)}
    best = {optimizer: min(of_rates, key=sum) for optimizer, of_rates in runs.items()}
    rows = []
    for optimizer, of_rates in runs.items():
        number = of_rates.index(best[optimizer])
        row: dict[str, Any] = {"optimizer": optimizer, **dict(zip(COLUMNS, of_rates, strict=True))}
        row["best rate"] = f"{rates(kind, optimizer)[number]:g}" + ("" if number == 1 else "*")
        for other in (ADAMW, CONSTANT):
            gaps = [ours - theirs for ours, theirs in zip(best[optimizer], best[other], strict=True)]
            row[f"best - {other}"] = "" if other == optimizer else gaps
        row["state"] = kept[name(kind, optimizer, 0)] / kept[name(kind, ADAMW, 0)]
        rows.append(row)
    return rows


def step_seconds() -> list[dict[str, Any]]:
    """What a step takes, in units of AdamW's, all in turns."""
    drawn = torch.Generator().manual_seed(0)
    shapes = [(f"layers.{layer}.{number}.weight", shape) for layer in range(4) for number, shape in enumerate(BLOCK)]
    optimizers = {}
    for label in of_kind("sft"):
        values = [torch.nn.Parameter(torch.randn(shape, generator=drawn)) for _, shape in shapes]
        cls = kinds.find(kinds.OPTIMIZERS, OPTIMIZERS[label]["class"])
        groups = [{"params": values, "weight_decay": 0.01}]
        if hasattr(cls, "grouped"):
            groups = cls.grouped(groups, dict(zip(values, (word for word, _ in shapes), strict=True)))
        optimizer = cls(groups, lr=1e-3, **optimizer_blocks.keys_of(OPTIMIZERS[label]))
        if callable(getattr(optimizer, "train", None)):
            optimizer.train()
        for value in values:
            value.grad = torch.randn(value.shape, generator=drawn)
        optimizers[label] = optimizer
    taken: dict[str, list[float]] = {label: [] for label in optimizers if label != CONSTANT}
    for _ in range(ROUNDS + 1):  # the first makes the states
        for label, of_rounds in taken.items():
            begun = time.process_time()
            for _ in range(STEPS_OF_ROUND):
                optimizers[label].step()
            of_rounds.append(time.process_time() - begun)
    rows = []
    for label, seconds in taken.items():
        shares = [ours / theirs for ours, theirs in zip(seconds[1:], taken[ADAMW][1:], strict=True)]
        of_rounds = (statistics.median(shares), min(shares), max(shares))
        rows.append({"optimizer": label, **dict(zip(("a step", "lowest", "highest"), of_rounds, strict=True))})
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
