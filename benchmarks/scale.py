"""What the 7B recipes take on 8, 64 and 512 GPUs, and what every stage of a 7B model needs of a GPU's memory.

    python benchmarks/scale.py                      # hours and cost of recipes/mistral-7b, with the arithmetic
    python benchmarks/scale.py memory               # GiB of a rank, by stage, engine and number of GPUs

Nothing of it was measured on a GPU. Seconds are those of the forecast (docs/planning.md) of what a rank computes, and
what the forecast leaves out, the traffic between ranks and the longest answer of a part, is added here by constants
that stand below with their origin. All GPUs are paid for from the first step to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from trimtab.pipelines import ROOT
from trimtab.pipelines.forecasting import amounts, disk, machines
from trimtab.pipelines.forecasting.forecast import Forecaster
from trimtab.pipelines.forecasting.setting import Engine, Setting
from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Launch, Recipe, Step

GPU = "h100"
PRICE = 2.5  # dollars for an hour of a GPU: about what clouds ask for an H100 in 2026
PROMPTS, PROMPT = 60_000, 200  # of UltraFeedback, which has 64,000; tokens of one
ANSWER, LONGEST = 400, 2048  # tokens of an answer, in the mean and at most
BATCH = 64  # rows of an optimizer step: no training can use more GPUs
NODE = 8  # GPUs of a machine
# bytes a second that each rank sends in a collective operation over all: NVLink's 450 GB/s, and over machines the
# eight network cards of 50 GB/s of one of them, which rings share; 70 % and 80 % of these are reached
WITHIN, BETWEEN = 0.7 * 450e9, 0.8 * 8 * 50e9
STORAGE = 10e9  # bytes a second that a cluster's file system takes from all ranks together, an assumption
GATHERED, TRIPS = 4, 3  # bytes of a weight; gathered forward, gathered backward, gradients scattered
IMPORTED = ("rows", "models", "trainer", "imports")  # amounts of the forecast that are no work
RECIPES = ("apo", "sppo")
COUNTS = (8, 64, 512)

QWEN = {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064}  # fmt: skip
MISTRAL = {"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
           "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000}  # fmt: skip
ENGINES = ("ddp", "zero2", "zero3", "zero3_offload", "fsdp2")


@dataclass
class Taken:
    """Seconds of a step: its launch, computing, saving, waiting for weights, waiting for the longest answer."""

    fixed: float
    computed: float
    saved: float = 0.0
    traffic: float = 0.0
    tail: float = 0.0

    @property
    def whole(self) -> float:
        return self.fixed + self.computed + self.saved + self.traffic + self.tail


def taken(forecaster: Forecaster, step: Step, count: int) -> Taken:
    """What a step takes on so many GPUs; a training leaves those beyond its batch idle."""
    launch = Launch(min(count, BATCH) if step.batch else count, on_cpu=False)
    setting = forecaster.setting(step, launch)
    machine, work = forecaster.machine, forecaster.work(step, setting)[0]
    ahead, of_step = forecaster.forecast(step, launch), amounts.of(work, setting, 0)
    imported = sum(of_step[name] * machine.prices[name] for name in IMPORTED)
    fixed = ahead.launch + imported
    stage = forecaster.memory.stage(step)
    written, artifact = disk.checkpoints(stage, work, setting)[0], disk.artifact(stage, work)
    forecast_saved = (written + artifact) * machine.prices["written"]
    computed = ahead.seconds - imported - forecast_saved
    saved = max(forecast_saved, artifact * machine.prices["written"] + written * setting.ranks / STORAGE)
    if step.kind == "sample":
        read = work.held[0].model.parameters * 2 * machine.reading  # bfloat16, once for each token
        return Taken(fixed, computed, saved, tail=(LONGEST - ANSWER) * read)
    if not work.updates:
        return Taken(fixed, computed, saved)
    micro_steps = work.updates * setting.accumulation
    sent = TRIPS * GATHERED * work.held[0].model.parameters * (1 - 1 / setting.ranks)
    seconds = micro_steps * sent / (WITHIN if setting.ranks <= NODE else BETWEEN)
    operations = of_step["operations"] * machine.prices["operations"]
    return Taken(
        fixed, computed, saved, traffic=max(0.0, seconds - operations)
    )  # the next layer comes while one computes


def model(folder: Path, config: dict[str, Any]) -> Path:
    """A model without weights, whose tokens are words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<unk>": 0, "</s>": 1, "word": 2}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def planned(name: str, count: int, prompts: Path, base: Path) -> Recipe:
    """A shipped recipe on so many GPUs, with prompts and answers of known numbers of tokens."""
    tokens = f"stages.{name}.generate.max_new_tokens={ANSWER}"
    overrides = [f"inputs.prompts={prompts}", f"inputs.base={base}", tokens, f"output_dir={base / 'runs'}"]
    return Recipe.load(
        str(ROOT / "recipes" / "mistral-7b" / f"{name}.yaml"), overrides, Ranks(every=min(count, BATCH))
    )


def costs(folder: Path) -> Iterator[str]:
    """The table of hours and dollars, and where the time goes."""
    prompts = folder / "prompts.jsonl"
    asked = json.dumps({"prompt": [{"role": "user", "content": " ".join(["word"] * PROMPT)}]})
    prompts.write_text(f"{asked}\n" * PROMPTS)
    base = model(folder / "mistral-7b", MISTRAL)
    columns = "recipe GPUs sampling scoring training other hours GPU-hours dollars computing memory".split()
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join('---' for _ in columns)} |"
    arithmetic = []
    for name in RECIPES:
        for count in COUNTS:
            forecaster = Forecaster(machines.budget(f"{count}x{GPU}"))
            by_kind: dict[str, float] = defaultdict(float)
            computed, peak, parts = 0.0, 0.0, Taken(0, 0)
            for step in planned(name, count, prompts, base).steps:
                of_step = taken(forecaster, step, count)
                kind = {"sample": "sampling", "score": "scoring"}.get(step.kind, "training" if step.batch else "rest")
                by_kind[kind] += of_step.whole
                ranks = min(count, BATCH) if step.batch else count
                peak = max(peak, forecaster.forecast(step, Launch(ranks, on_cpu=False)).peak)
                computed += of_step.computed * (ranks if kind != "rest" or step.kind == "monitor" else 1)
                for part in vars(parts):
                    setattr(parts, part, getattr(parts, part) + getattr(of_step, part))
            whole = sum(by_kind.values())
            hours = whole / 3600
            cells = [by_kind[kind] / 60 for kind in ("sampling", "scoring", "training", "rest")]
            minutes = " | ".join(f"{cell:.0f} min" for cell in cells)
            busy = computed / (whole * count)
            yield (
                f"| `{name}` | {count} | {minutes} | {hours:.2f} | {hours * count:.0f} | "
                f"{hours * count * PRICE:,.0f} | {busy:.0%} | {peak / 2**30:.0f} GiB |"
            )
            told = {"launches and imports": parts.fixed, "computing": parts.computed, "saving": parts.saved,
                    "waiting for weights": parts.traffic, "waiting for the longest answers": parts.tail}  # fmt: skip
            told_minutes = ", ".join(f"{seconds / 60:.0f} min {name}" for name, seconds in told.items())
            arithmetic.append(f"{name}, {count} GPUs: {told_minutes}")
    yield ""
    yield from arithmetic


def stages(model: str) -> dict[str, dict[str, Any]]:
    """A 7B model in every stage that holds one; rows of 2,048 tokens at most."""
    of_model = {"model_name_or_path": model, "dtype": "float32"}
    train = {"per_device_train_batch_size": 1, "bf16": True, "gradient_checkpointing": True, "max_length": 2048}
    online = {"per_device_train_batch_size": 8, "num_generations": 8, "max_completion_length": 1024, "beta": 0.04,
              "bf16": True, "gradient_checkpointing": True}  # fmt: skip
    judge = {"judge": {"kind": "reward_model", "path": "org/judge-8b", "dtype": "bfloat16"}}
    adapters = {"use_peft": True, "lora_r": 16}
    drawn = {"num_generations": 4, "sample_batch_size": 64, "generate": {"max_new_tokens": 1024}}
    rows, pairs = "org/rows", "org/pairs"
    return {
        "sft": {"model": of_model, "data": rows, "train": train},
        "dpo": {"model": of_model, "data": pairs, "train": train},
        "dpo-lora": {"kind": "dpo", "model": of_model | adapters, "data": pairs, "train": train},
        "reward": {"model": of_model, "data": pairs, "train": train},
        "grpo": {"kind": "grpo", "model": of_model, "data": rows, "rewards": judge, "train": online},
        "sample": {"model": of_model, "prompts": rows, **drawn},
        "score": {"completions": "$sample", "rewards": judge},
    }


def memory(folder: Path) -> Iterator[str]:
    """The table of memory: GiB of a rank, a star where a GPU of 80 GB has less."""
    file = folder / "memory.yaml"
    blocks = stages(str(model(folder / "qwen2.5-7b", QWEN)))
    file.write_text(json.dumps({"output_dir": str(folder), "stages": blocks}))
    yield "| stage | engine | " + " | ".join(f"{count} x 80 GB" for count in (1, 8, 16)) + " | of which, on 8 |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for step in Recipe.load(str(file), ranks=Ranks(every=1)).steps:
        for engine in ENGINES if step.batch else ("whole on each",):
            forecasts = [of_engine(step, engine, count) for count in (1, 8, 16)]
            cells = [f"{one.peak / 2**30:.0f}{'' if one.fits else ' *'}" for one in forecasts]
            parts = {name: size / 2**30 for name, size in forecasts[1].parts.items() if name != "process"}
            told = ", ".join(f"{name} {size:.0f}" for name, size in parts.items() if size >= 0.5)
            yield f"| `{step.name}` | {engine} | {' | '.join(cells)} | {told} |"


def of_engine(step: Step, engine: str, count: int) -> Any:
    """The forecast of a step under an engine, on so many GPUs."""
    forecaster = Forecaster(machines.budget(f"{count}x{GPU}"))
    setting: Setting = forecaster.setting(step, Launch(count, on_cpu=False))
    if step.batch:
        config = yaml.safe_load((ROOT / "accelerate_configs" / f"{engine}.yaml").read_text())
        setting = replace(setting, engine=Engine.of(config))
    return forecaster.under(step, setting)


def main() -> None:
    """Prints one of the two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?", choices=["cost", "memory"], default="cost")
    table = costs if parser.parse_args().table == "cost" else memory
    os.environ["HF_HUB_OFFLINE"] = "1"  # sizes are those that names say, and the same everywhere
    with tempfile.TemporaryDirectory() as name:
        for line in table(Path(name)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
