"""Speed, memory and MFU of training: each stage under each engine, with plain TRL beside it, by real launches.

    python benchmarks/throughput.py                                                      # sft and dpo on all GPUs
    python benchmarks/throughput.py stages=sft,dpo,grpo,ppo engines=ddp,zero2,zero3,fsdp2 precisions=bf16,fp32 \
        attentions=sdpa,flash_attention_2 train.gradient_checkpointing=false
    python benchmarks/throughput.py model=tiny ranks=2 batch=2 tokens=64 steps=4 warmup=2 repeats=1 out=/tmp/results

The model is a random Llama of the shape of Qwen2.5-0.5B (without the biases of its attention: transformers' tokenizer
of `qwen2` takes no other vocabulary), which the `scratch` stage makes on 151,930 invented words. A word is a token, so
all rows have `tokens` tokens and nothing is padded; half of them are prompt in `grpo` and `ppo`, and completions have
at most the other half. `train.KEY=value` goes to every `train` block; what is not set is TRL's default.

tokens/s    of all ranks, by the trainers' own count (`num_tokens`: with prompts, and both answers of a pair), from the
            log of step `warmup` to that of the last step, each of which waits for the GPU. Loading and saving are
            outside; sampling and scoring, in `grpo` and `ppo`, inside. Median of `repeats` launches.
TRL, ratio  the same of TRL's own trainer on the same model, rows and settings (sft and dpo, on `single` and `ddp`);
            the two take turns. Above 1 ours is faster.
GiB         torch.cuda.max_memory_allocated of the rank that has most, over the whole launch. (transformers'
            `skip_memory_metrics: false` knows one rank, and its thread never sleeps, which slows what is timed.)
MFU         tokens/s times (6 parameters + 12 layers x hidden size x `tokens`), for dpo a third more for the
            reference's forward, over the GPUs' peak in dense bf16. Attention counts as if it were not causal,
            recomputed activations do not count. None for `grpo` and `ppo`, which also sample, and, without
            `peak_tflops` (of one GPU), for fp32 and for devices that are not in the table.

A launch that fails is a row with its error, and the next one begins. Without a GPU `single` and `ddp` are `cpu`, where
our stages compute TRL's LM head in tiles of another size: the ratios of a CPU say nothing about a GPU.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import random
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import datasets
import torch
import transformers
import trl
import yaml

from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts, tracking
from trimtab.pipelines.running import orphans
from trimtab.scripts import train

ROOT = Path(__file__).resolve().parents[1]
GPU = torch.cuda.is_available()
SHAPES = {
    "qwen2.5-0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
                     "num_key_value_heads": 2, "vocab_size": 151936},
    "tiny": {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 1000},
}  # fmt: skip
TRAINERS = {"sft": (trl.SFTTrainer, trl.SFTConfig), "dpo": (trl.DPOTrainer, trl.DPOConfig)}
OPERATIONS = {"sft": 6, "dpo": 8}  # of a parameter and token: 2 forward, 4 backward, 2 of dpo's reference
PEAK_TFLOPS = {"H100 80GB HBM3": 989, "H100 NVL": 835, "H100 PCIe": 756, "H200 NVL": 835, "H200": 989, "A100": 312,
               "L40S": 362, "L4": 121, "RTX 4090": 165}  # dense bf16; the first name that fits  # fmt: skip
VERSIONS = {package.name: package.version for package in importlib.metadata.distributions() if package.name in
            ("torch", "transformers", "trl", "accelerate", "deepspeed", "flash_attn", "flash-attn")}  # fmt: skip
REWARDS = {"brief": {"kind": "length", "target": 100, "threshold": 0.5},
           "ones": {"kind": "pattern", "regex": "1", "count": True, "threshold": 1.0}}  # fmt: skip
ERROR = re.compile(r"(\[rank\d+\]: *)?([\w.]*(Error|Exception)\b|error: )")
COLUMNS = ("stage", "engine", "ranks", "precision", "attention")
TABLE = "{:6}{:8}{:>5}  {:10}{:18}{:>10}{:>10}{:>7}{:>7}{:>7}"


@dataclass(kw_only=True)
class Bench:
    """The words of the command line; `train` holds those that begin with `train.`."""

    stages: str = "sft,dpo"
    engines: str = ""  # `ddp`, or `single` for one rank
    precisions: str = "bf16" if GPU else "fp32"
    attentions: str = "sdpa"
    model: str = "qwen2.5-0.5b"
    ranks: int = torch.cuda.device_count() or 1
    batch: int = 8
    tokens: int = 1024
    steps: int = 20  # a multiple of `warmup`: every so many steps are logged
    warmup: int = 5
    repeats: int = 3
    timeout: float = 1800  # seconds of a launch
    peak_tflops: float | None = None
    out: str = str(ROOT / "benchmarks/results")
    train: dict = field(default_factory=dict)

    def run(self) -> None:
        """Prints the table and writes the file, after each row."""
        device, date = torch.cuda.get_device_name() if GPU else "cpu", time.strftime("%Y-%m-%d-%H%M%S")
        path = Path(self.out) / f"{re.sub('[^a-z0-9]+', '-', device.lower())}-{date}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        known = [peak for name, peak in PEAK_TFLOPS.items() if re.search(rf"\b{name}\b(?!.*MIG)", device)]
        engines = self.engines or ("ddp" if self.ranks > 1 else "single")
        with tempfile.TemporaryDirectory() as folder:
            self.prepare(Path(folder))
            record = {"command": shlex.join(["python", *sys.argv]), "date": date, "device": device,
                      "versions": VERSIONS, "parameters": self.parameters, **asdict(self), "rows": []}  # fmt: skip
            print(f"{device}; {self.model}, {self.parameters / 1e6:.1f} M parameters")
            print(TABLE.format(*COLUMNS, "tokens/s", "TRL", "ratio", "GiB", "MFU"))
            asked = (words.split(",") for words in (self.stages, engines, self.precisions, self.attentions))
            for stage, engine, precision, attention in itertools.product(*asked):
                peak = self.peak_tflops or (known[0] if known and precision == "bf16" else None)
                record["rows"].append(self.row(stage, engine, precision, attention, peak))
                show(record["rows"][-1])
                path.write_text(json.dumps(record, indent=1) + "\n")
        print(path)

    def prepare(self, folder: Path) -> None:
        """Makes the model, and the rows of every stage: enough for one epoch."""
        self.folder, self.shape = folder, SHAPES[self.model]
        words = [f"w{at}" for at in range(self.shape["vocab_size"] - 6)]  # the tokenizer has six tokens of its own
        draw, answer = random.Random(0), self.tokens - 2  # TRL adds the token that ends a text or an answer
        steps = (self.warmup + self.steps) * self.train.get("gradient_accumulation_steps", 1)

        def text(count: int) -> str:
            return " ".join(draw.choices(words, k=count))

        def write(name: str, rows: list[dict]) -> str:
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
            return str(folder / name)

        rows = range(steps * self.batch * self.ranks)
        pairs = [{"prompt": text(1), **{key: " " + text(answer) for key in ("chosen", "rejected")}} for _ in rows]
        prompts = write("prompts.jsonl", [{"prompt": text(self.tokens // 2)} for _ in rows])
        texts = write("sft.jsonl", [{"text": text(self.tokens - 1)} for _ in rows])
        self.data = {"sft": texts, "dpo": write("dpo.jsonl", pairs), "grpo": prompts, "ppo": prompts}
        config = {"model_type": "llama", "tie_word_embeddings": True, **self.shape}
        scratch = {"corpus": write("corpus.jsonl", [{"text": word} for word in words]), "tokenizer": "word",
                   "max_length": self.tokens, "vocab_size": config.pop("vocab_size"), "config": config}  # fmt: skip
        made = self.launch("ours", {"scratch": scratch}, "single" if GPU else "cpu", 1, folder)
        self.path, self.parameters = str(made / "output"), artifacts.read_done(made)["metrics"]["parameters"]

    def row(self, stage: str, engine: str, precision: str, attention: str, peak: float | None) -> dict:
        """One combination, with `error` where it failed."""
        ranks = 1 if engine == "single" else self.ranks
        engine = "cpu" if engine in ("single", "ddp") and not GPU else engine
        found = dict(zip(COLUMNS, (stage, engine, ranks, precision, attention), strict=True))
        sides = ("ours", "trl") if stage in TRAINERS and engine in ("cpu", "single", "ddp") else ("ours",)
        try:
            block = self.block(stage, precision, attention)
            runs = [[self.measure(side, {stage: block}, engine, ranks) for side in sides] for _ in range(self.repeats)]
        except Exception as error:  # of whatever kind: the other combinations go on
            return {**found, "error": f"{type(error).__name__}: {error}"}
        for side, results in zip(sides, zip(*runs, strict=True), strict=True):
            speeds = [result["tokens_per_second"] for result in results]
            found[side] = {**results[-1], "tokens_per_second": statistics.median(speeds), "runs": speeds}
        speed = found["ours"]["tokens_per_second"]
        attended = 2 * self.shape["num_hidden_layers"] * self.shape["hidden_size"] * self.tokens
        flops = speed * OPERATIONS.get(stage, 0) * (self.parameters + attended)
        found["ratio"] = speed / found["trl"]["tokens_per_second"] if "trl" in found else None
        found["mfu"] = flops / (peak * 1e12 * ranks) if flops and peak else None
        return found

    def block(self, stage: str, precision: str, attention: str) -> dict:
        """The stage of a recipe."""
        if attention == "flash_attention_2" and not {"flash_attn", "flash-attn"} & VERSIONS.keys():
            raise ModuleNotFoundError("flash_attention_2 needs the package flash_attn, which is not installed")
        bf16 = {"bf16": True, "fp32": False}[precision]
        common = {"bf16": bf16, "save_strategy": "no", "max_steps": self.warmup + self.steps,
                  "logging_steps": self.warmup, "per_device_train_batch_size": self.batch}  # fmt: skip
        model = {"model_name_or_path": self.path, "attn_implementation": attention}
        block, own = {"kind": stage, "model": model, "data": self.data[stage]}, {"max_length": self.tokens}
        if stage not in TRAINERS:
            block |= {"kind": "constrained", "trainer": stage, "method": "xi", "rewards": REWARDS}
            own = {"beta": 0.1, "num_generations": self.batch, "max_completion_length": self.tokens // 2}
        return {**block, "train": common | own | self.train}

    def measure(self, side: str, stages: dict, engine: str, ranks: int) -> dict:
        """What one launch has done; `gib` is None on a CPU."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            log = self.launch(side, stages, engine, ranks, Path(name)) / "metrics.jsonl"
            rows = {row["step"]: row for row in tracking.read(log) if "train/num_tokens" in row}
            first, last = rows[self.warmup], rows[self.warmup + self.steps]
            tokens, seconds = (last[key] - first[key] for key in ("train/num_tokens", "time"))
            peaks = [float(Path(name, f"gib-{rank}").read_text()) for rank in range(ranks if GPU else 0)]
            return {"tokens_per_second": tokens / seconds, "tokens_per_step": tokens / self.steps,
                    "gib": max(peaks, default=None), "gib_by_rank": peaks}  # fmt: skip

    def launch(self, side: str, stages: dict, engine: str, ranks: int, folder: Path) -> Path:
        """Runs a recipe of one stage, by scripts/train.py or by TRL. Returns where its log is, raises its errors."""
        recipe = folder / "recipe.yaml"
        recipe.write_text(yaml.safe_dump({"output_dir": str(folder / "runs"), "wandb": False, "stages": stages}))
        command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(ranks), "--config_file",
                   f"accelerate_configs/{engine}.yaml", __file__, side, str(recipe)]  # fmt: skip
        environment = os.environ | {"HF_DATASETS_CACHE": str(folder / "cache")}
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=self.timeout, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        if done.returncode:
            errors = [line for line in done.stdout.splitlines() if ERROR.match(line) and "ChildFailed" not in line]
            raise RuntimeError("\n".join(errors[-3:]) or done.stdout[-500:])
        return folder if side == "trl" else Recipe.load(str(recipe), ranks=Ranks(every=ranks)).steps[0].dir


def show(row: dict) -> None:
    """A line of the table, and the error of a row that failed."""
    ours, theirs = row.get("ours", {}), row.get("trl", {})
    numbers = [(ours.get("tokens_per_second"), ".0f"), (theirs.get("tokens_per_second"), ".0f"),
               (row.get("ratio"), ".3f"), (ours.get("gib"), ".1f"), (row.get("mfu"), ".3f")]  # fmt: skip
    cells = [row[key] for key in COLUMNS] + ["-" if value is None else format(value, how) for value, how in numbers]
    print(TABLE.format(*cells) + (f"\n    {row['error']}" if "error" in row else ""), flush=True)


def worker(side: str, recipe: str) -> None:
    """What each rank runs."""
    orphans.die_with_launcher()
    if side == "trl":
        plain_trl(Path(recipe))
    elif code := train.main([recipe]):
        sys.exit(code)
    if GPU:
        Path(recipe).with_name(f"gib-{train.RANK}").write_text(str(torch.cuda.max_memory_allocated() / 2**30))


def plain_trl(recipe: Path) -> None:
    """TRL's trainer with the recipe's settings, and a log with times."""

    class Clock(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if state.is_world_process_zero and "num_tokens" in logs:
                row = {"time": time.time(), "step": state.global_step, "train/num_tokens": logs["num_tokens"]}
                with recipe.with_name("metrics.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")

    ((stage, block),) = yaml.safe_load(recipe.read_text())["stages"].items()
    trainer, config = TRAINERS[stage]
    model = {"attn_implementation": block["model"]["attn_implementation"], "dtype": trl.ModelConfig().dtype}
    args = config(output_dir=str(recipe.parent), report_to="none", use_cpu=not GPU, dataloader_pin_memory=GPU,
                  model_init_kwargs=model, **block["train"])  # fmt: skip
    rows = datasets.load_dataset("json", data_files=block["data"], split="train")
    trainer(block["model"]["model_name_or_path"], args=args, train_dataset=rows, callbacks=[Clock()]).train()


if __name__ == "__main__":
    if sys.argv[1:2] in (["ours"], ["trl"]):
        worker(*sys.argv[1:])
    else:
        words = {key: yaml.safe_load(value) for key, value in (word.split("=", 1) for word in sys.argv[1:])}
        settings = {key[6:]: words.pop(key) for key in list(words) if key.startswith("train.")}
        Bench(**words, train=settings).run()
