"""Part `models` of benchmarks/gpu_check.py: trainings and sampling of a model made from a config, beside plain TRL's.

    python benchmarks/gpu/models.py SIZE FOLDER OUT        # a line of OUT for each row, as it ends; rows there stay

A row is one of ROWS on one side, `ours` or `trl`, in turns, with the same weights, rows and settings; what is not set
is TRL's default but `gradient_checkpointing: false`. A side trains twice: two steps to warm up, then STEPS that count.

seconds     of the whole `train()`, with the reference's pass over all rows where one is made before the first step.
useful      tokens: a prompt once, and its answers. `computed` are those of padded batches, a prompt with each answer.
mfu         of both: operations of a parameter and token, over the seconds and the device's peak in bfloat16. Attention
            is left out. None where the peak is not known, and for what samples.
losses      of the steps, for comparison: the two sides read the same rows in the same order.
peak        GiB of torch.cuda.max_memory_allocated during the training that counts.
"""

from __future__ import annotations

import functools
import gc
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "speed"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import _checkout  # noqa: F401
import clock
import torch
import trl
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast, TrainerCallback

from trimtab.pipelines.algorithms import losses
from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers
from trimtab.pipelines.algorithms.objectives import Lagrangian
from trimtab.pipelines.sampling import sampler, transformers_engine
from trimtab.pipelines.trainers.constrained_grpo import ConstrainedGRPOTrainer
from trimtab.pipelines.trainers.lists import ListTrainer
from trimtab.pipelines.trainers.reward_functions import RewardFunction
from trimtab.pipelines.trainers.whole_steps import DPOTrainer, RewardTrainer, SFTTrainer
from trimtab.pipelines.training.compute_once import compute_once
from trimtab.rewards.pattern import Pattern

GPU = torch.cuda.is_available()
WARM, STEPS, ANSWERS = 2, 8 if GPU else 2, 4
OPERATIONS = {"sft": 6, "dpo": 8, "prefer": 6, "reward": 6}  # of a parameter and token; dpo's reference has 2 of them
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # operations a second, dense bfloat16
SIZES = {
    "half-billion": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
                     "num_key_value_heads": 2, "vocab_size": 151936},
    "tiny": {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 1000},
}  # fmt: skip
LENGTHS = {"half-billion": ((172, 1.0), (90, 0.8), 512), "tiny": ((20, 0.8), (8, 0.6), 48)}  # mean, sigma; the longest
ROWS = ("sft", "dpo", "reward", "prefer", "sample", "grpo")


def main(size: str, folder: str, out: str) -> None:
    """Adds the rows that OUT lacks."""
    file = Path(out)
    lines = file.read_text().splitlines() if file.exists() else []
    done = {(row["row"], row["side"]) for row in map(json.loads, lines)}
    bench = Bench(size, Path(folder))
    for name in ROWS:
        for side in ("trl", "ours"):
            if (name, side) in done or (name == "prefer" and side == "trl"):
                continue
            try:
                row = bench.row(name, side)
            except Exception as error:  # of whatever kind: the next row goes on
                row = {"error": f"{type(error).__name__}: {error}"[:500]}
            row = {"row": name, "side": side, **row}
            with file.open("a") as lines_of_rows:
                lines_of_rows.write(json.dumps(row) + "\n")
            print(shown(row), flush=True)
            bench.free()
    print("\n".join(compared([json.loads(line) for line in file.read_text().splitlines()])))


def shown(row: dict[str, Any]) -> str:
    """A row in a line."""
    if "error" in row:
        return f"{row['row']:7} {row['side']:5} {row['error']}"
    useful = row["useful"] / row["seconds"]
    mfu = "-" if row.get("mfu") is None else f"{row['mfu']['useful']:.1%} {row['mfu']['computed']:.1%}"
    peak = "-" if row["peak"] is None else f"{row['peak']:.1f} GiB"
    end = " ".join(f"{loss:.4f}" for loss in row.get("losses", ())[:3])
    return f"{row['row']:7} {row['side']:5} {row['seconds']:8.2f} s {useful:9.0f} tokens/s  MFU {mfu}  {peak}  {end}"


class Bench:
    """The model, its rows, and what is measured with them."""

    def __init__(self, size: str, folder: Path):
        self.folder, self.shape, self.size = folder, SIZES[size], size
        self.batch = 8 if GPU else 2
        self.prompt, self.answer, self.longest = LENGTHS[size]
        self.path, self.parameters = self._model()
        self.texts = self._texts((WARM + STEPS) * self.batch)

    def _model(self) -> tuple[str, int]:
        """A random model that knows invented words, as a folder."""
        from tokenizers import Tokenizer, models, pre_tokenizers

        path, special = self.folder / f"model-{self.size}", {"<pad>": 0, "<eos>": 1}
        words = {f"w{number}": number for number in range(len(special), self.shape["vocab_size"])}
        config = AutoConfig.for_model("llama", **self.shape, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1,
                                      bos_token_id=None, max_position_embeddings=4096)  # fmt: skip
        if not (path / "config.json").exists():
            raw = Tokenizer(models.WordLevel(special | words, unk_token="<pad>"))
            raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
            tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")
            tokenizer.save_pretrained(path)
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(config).save_pretrained(path)
        with torch.device("meta"):
            parameters = AutoModelForCausalLM.from_config(config).num_parameters()
        return str(path), parameters

    def _texts(self, count: int) -> list[dict[str, Any]]:
        """Prompts with answers, of lengths that vary as those of people do."""
        draw = random.Random(0)

        def text(mean: float, sigma: float) -> str:
            tokens = round(mean * draw.lognormvariate(-(sigma**2) / 2, sigma))
            tokens = min(max(tokens, 2), self.longest)
            return " ".join(f"w{draw.randrange(2, self.shape['vocab_size'])}" for _ in range(tokens))

        rows = [[text(*self.prompt), *(" " + text(*self.answer) for _ in range(ANSWERS))] for _ in range(count)]
        return [{"prompt": prompt, "answers": answers} for prompt, *answers in rows]

    def row(self, name: str, side: str) -> dict[str, Any]:
        """What one side has measured."""
        if name == "sample":
            return self._sampled(side)
        self._train(name, side, self.texts[: WARM * self.batch])
        texts = self.texts[WARM * self.batch :]
        if GPU:
            torch.cuda.reset_peak_memory_stats()
        seconds, log = self._train(name, side, texts)
        measured = {"seconds": seconds, "peak": peak(), **log, **self._tokens(name, texts)}
        return measured | {"mfu": self._mfu(name, measured)}

    def _train(self, name: str, side: str, texts: list[dict[str, Any]]) -> tuple[float, dict[str, Any]]:
        measured = clock.Measured()
        with clock.before(measured, trl.DPOTrainer, "_precompute_ref_logps"):
            trainer = getattr(self, f"_{name}")(side, texts)
        if side == "ours":
            compute_once(trainer)
        trainer.add_callback(Losses(losses_of := []))
        settled()
        begun = time.perf_counter()
        trainer.train()
        settled()
        seconds = measured.before + time.perf_counter() - begun
        del trainer
        self.free()
        return seconds, {"losses": losses_of}

    def _settings(self, config: type, texts: list[dict[str, Any]], **own: Any) -> Any:
        common = {"output_dir": str(self.folder / "trained"), "report_to": "none", "bf16": GPU, "use_cpu": not GPU,
                  "per_device_train_batch_size": self.batch, "num_train_epochs": 1, "logging_steps": 1,
                  "save_strategy": "no", "gradient_checkpointing": False, "disable_tqdm": True,
                  "learning_rate": 1e-5, "dataloader_pin_memory": GPU}  # fmt: skip
        return config(**common | own)

    def _sft(self, side: str, texts: list[dict[str, Any]]) -> Any:
        rows = Dataset.from_list([{"prompt": row["prompt"], "completion": row["answers"][0]} for row in texts])
        trainer = {"ours": SFTTrainer, "trl": trl.SFTTrainer}[side]
        return trainer(self.path, args=self._settings(trl.SFTConfig, texts, max_length=None), train_dataset=rows)

    def _dpo(self, side: str, texts: list[dict[str, Any]]) -> Any:
        trainer = {"ours": DPOTrainer, "trl": trl.DPOTrainer}[side]
        args = self._settings(trl.DPOConfig, texts, max_length=None)
        return trainer(self.path, args=args, train_dataset=pairs(texts))

    def _reward(self, side: str, texts: list[dict[str, Any]]) -> Any:
        trainer = {"ours": RewardTrainer, "trl": trl.RewardTrainer}[side]
        args = self._settings(trl.RewardConfig, texts, max_length=None)
        return trainer(self.path, args=args, train_dataset=pairs(texts))

    def _prefer(self, side: str, texts: list[dict[str, Any]]) -> Any:
        """All answers of a prompt, whose log-probabilities by the untrained model are asked before."""
        prompts, answers = [self._ids(row["prompt"]) for row in texts], [row["answers"] for row in texts]
        rows = [
            {"prompt_ids": prompt, "completion_ids": [self._ids(text) for text in texts_of_row]}
            for prompt, texts_of_row in zip(prompts, answers, strict=True)
        ]
        policy = self._policy()
        for row in rows:
            asked = [row["prompt_ids"]] * ANSWERS, row["completion_ids"]
            row["ref_logps"] = [sum(tokens) for tokens in transformers_engine.logprobs(policy, *asked)]
        del policy
        self.free()
        args = self._settings(trl.SFTConfig, texts, max_length=None)
        loss = functools.partial(losses.named("dpo"), beta=0.1)
        return ListTrainer(loss=loss, args=args, model=self.path, train_dataset=Dataset.from_list(rows))

    def _grpo(self, side: str, texts: list[dict[str, Any]]) -> Any:
        rows = Dataset.from_list([{"prompt": row["prompt"]} for row in texts])
        size, length = max(self.batch, ANSWERS), 96 if GPU else 8
        steps = min(len(texts) * ANSWERS // size, 4)
        args = self._settings(trl.GRPOConfig, texts, beta=0.1, num_generations=ANSWERS, max_steps=steps,
                              max_completion_length=length, per_device_train_batch_size=size)  # fmt: skip
        ones = RewardFunction("ones", Pattern(regex="1", count=True))
        given = {"model": self.path, "reward_funcs": [ones], "args": args, "train_dataset": rows}
        if side == "trl":
            return trl.GRPOTrainer(**given)
        return ConstrainedGRPOTrainer(objective=Lagrangian({}, Multipliers({"ones": Constraint(1.0)})), **given)

    def _sampled(self, side: str) -> dict[str, Any]:
        """Ours with log-probabilities, a `generate` loop sorted by length without."""
        policy, width = self._policy(), 64 if GPU else 8
        prompts = sorted((self._ids(row["prompt"]) for row in self.texts[: 48 if GPU else 4]), key=len)
        asked = [prompt for prompt in prompts for _ in range(ANSWERS)]
        config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=128 if GPU else 8, eos_token_id=[1],
                                  pad_token_id=0)  # fmt: skip
        tokenizer = transformers_engine.load_tokenizer(trl.ModelConfig(model_name_or_path=self.path))

        def draw(rows: list[list[int]]) -> int:
            if side == "ours":
                requests = [sampler.Request(prompt, (0, place)) for place, prompt in enumerate(rows)]
                return sum(len(one.ids) for one in sampler.sample(policy, requests, config, width))
            batches = [rows[start : start + width] for start in range(0, len(rows), width)]
            drawn = (transformers_engine.generate(policy, batch, config, tokenizer) for batch in batches)
            return sum(sum(map(len, batch)) for batch in drawn)

        draw(asked[:width])
        if GPU:
            torch.cuda.reset_peak_memory_stats()
        settled()
        begun = time.perf_counter()
        tokens = draw(asked)
        settled()
        return {"seconds": time.perf_counter() - begun, "useful": tokens, "computed": tokens, "peak": peak()}

    def _policy(self) -> Any:
        return transformers_engine.load(trl.ModelConfig(model_name_or_path=self.path))

    def _ids(self, text: str) -> list[int]:
        return [int(word[1:]) for word in text.split()]

    def _tokens(self, name: str, texts: list[dict[str, Any]]) -> dict[str, int]:
        """Useful and computed tokens of a training; of GRPO those of its prompts alone."""
        count = {"sft": 1, "dpo": 2, "reward": 2, "prefer": ANSWERS, "grpo": 0}[name]
        lengths = [[len(text.split()) for text in (row["prompt"], *row["answers"][:count])] for row in texts]
        computed = 0
        for start in range(0, len(lengths), self.batch):
            rows = [[row[0] + answer for answer in row[1:]] or row for row in lengths[start : start + self.batch]]
            computed += sum(map(len, rows)) * max(map(max, rows))
        return {"useful": sum(map(sum, lengths)), "computed": computed}

    def _mfu(self, name: str, measured: dict[str, Any]) -> dict[str, float] | None:
        device = torch.cuda.get_device_name() if GPU else ""
        rate = next((rate for word, rate in PEAKS.items() if word in device), None)
        if rate is None or name not in OPERATIONS:
            return None
        of_token = OPERATIONS[name] * self.parameters / measured["seconds"] / rate
        return {key: measured[key] * of_token for key in ("useful", "computed")}

    def free(self) -> None:
        """Gives back what the last training has left."""
        gc.collect()
        if GPU:
            torch.cuda.empty_cache()


class Losses(TrainerCallback):
    """Keeps the loss of every step."""

    def __init__(self, kept: list[float]):
        self.kept = kept

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self.kept.append(float(logs["loss"]))


def pairs(texts: list[dict[str, Any]]) -> Dataset:
    """The first two answers, as chosen and rejected."""
    rows = ({"prompt": row["prompt"], "chosen": row["answers"][0], "rejected": row["answers"][1]} for row in texts)
    return Dataset.from_list(list(rows))


def settled() -> None:
    """Waits for the device."""
    if GPU:
        torch.cuda.synchronize()


def peak() -> float | None:
    """GiB that the device has held at most."""
    return torch.cuda.max_memory_allocated() / 2**30 if GPU else None


def compared(rows: list[dict[str, Any]]) -> list[str]:
    """Of each row the ratio of speeds, and how far the losses of the two sides are apart."""
    by_key = {(row["row"], row["side"]): row for row in rows if "error" not in row}
    lines = []
    for name in ROWS:
        ours, theirs = by_key.get((name, "ours")), by_key.get((name, "trl"))
        if not (ours and theirs):
            continue
        ratio = (ours["useful"] / ours["seconds"]) / (theirs["useful"] / theirs["seconds"])
        losses_of = zip(ours.get("losses", ()), theirs.get("losses", ()), strict=False)
        apart = [abs(one - other) for one, other in losses_of]
        told = f"losses at most {max(apart):.1e} apart, {statistics.median(apart):.1e} in the middle" if apart else ""
        lines.append(f"{name:7} {ratio:.2f} x trl  {told}")
    return lines


if __name__ == "__main__":
    main(*sys.argv[1:])
