"""Modes that train: plain TRL, as it comes and at its best, and our stage of the same work, by a recipe."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import datasets
import trl
import yaml
from clock import Measured, Side, before, training, trl_as_it_comes
from material import LONGEST, Material

from trimtab.pipelines.running import runner
from trimtab.pipelines.sampling import transformers_engine

COMMON = {
    "bf16": False,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "seed": 42,
    "data_seed": 42,
}
GRPO = {
    "num_generations": 8,
    "max_completion_length": 96,
    "beta": 0.04,
    "scale_rewards": "batch",
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
}
BRIEF = {"kind": "length", "target": 20}
THRESHOLDS = {
    "brief": BRIEF | {"threshold": -0.5},
    "words": {"kind": "pattern", "regex": "e", "count": True, "threshold": 1.0},
}
CRITICS = {"method": "xi", "trainer": "ppo", "rewards": THRESHOLDS}
OFF = {"gradient_checkpointing": False}
AHEAD = {"precompute_ref_log_probs": True}
SORTED = {"train_sampling_strategy": "group_by_length"}


def sft(material: Material, batch: int, steps: int) -> list[Side]:
    """Prompts with the chosen answer."""
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in material.pairs]
    settings = COMMON | {"per_device_train_batch_size": batch, "max_steps": steps, "max_length": LONGEST}
    theirs = {"trl": {}, "trl, no checkpointing": OFF}
    sides = [
        _trl(name, trl.SFTTrainer, trl.SFTConfig, material, rows, settings | more) for name, more in theirs.items()
    ]
    return [*sides, _ours("trimtab", material, "sft", rows, settings)]


def sft_packed(material: Material, batch: int, steps: int) -> list[Side]:
    """The same in rows that trl packs; both sides see the same rows."""
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in material.pairs]
    settings = COMMON | OFF | {"per_device_train_batch_size": max(batch // 4, 1), "max_steps": max(steps // 2, 1)}
    settings |= {"max_length": LONGEST, "packing": True}
    return [
        _trl("trl, packed", trl.SFTTrainer, trl.SFTConfig, material, rows, settings),
        _ours("trimtab, packed", material, "sft", rows, settings),
    ]


def dpo(material: Material, batch: int, steps: int) -> list[Side]:
    """Chosen against rejected answers, beta 0.1."""
    settings = COMMON | {"per_device_train_batch_size": batch, "max_steps": steps, "max_length": LONGEST}
    theirs = {"trl": {}, "trl, no checkpointing": OFF, "trl at its best": OFF | AHEAD}
    sides = [
        _trl(name, trl.DPOTrainer, trl.DPOConfig, material, material.pairs, settings | more)
        for name, more in theirs.items()
    ]
    return [*sides, _ours("trimtab dpo", material, "dpo", material.pairs, settings), _prefer(material, settings)]


def reward(material: Material, batch: int, steps: int) -> list[Side]:
    """A Bradley-Terry reward model."""
    settings = COMMON | {"per_device_train_batch_size": batch, "max_steps": steps, "max_length": LONGEST}
    theirs = {"trl": {}, "trl, no checkpointing": OFF}
    sides = [
        _trl(name, trl.RewardTrainer, trl.RewardConfig, material, material.pairs, settings | more)
        for name, more in theirs.items()
    ]
    return [*sides, _ours("trimtab", material, "reward", material.pairs, settings)]


def grpo(material: Material, batch: int, steps: int) -> list[Side]:
    """Two prompts with eight completions each, rewards by rules, the KL to the start; no completion ends by itself."""
    rows = [{"prompt": row["prompt"]} for row in material.pairs if len(material.prompt(row)) <= LONGEST // 2]
    settings = COMMON | GRPO | {"per_device_train_batch_size": 2 * batch, "max_steps": steps}
    theirs = {"trl": {}, "trl, no checkpointing": OFF}
    sides = [
        _trl(name, trl.GRPOTrainer, trl.GRPOConfig, material, rows, settings | more, reward_funcs=brief)
        for name, more in theirs.items()
    ]
    blocks = {
        "trimtab": {"method": "fixed", "rewards": {"brief": BRIEF}},
        "trimtab, two thresholds": {"method": "xi", "rewards": THRESHOLDS},
        "trimtab, critics on the policy": CRITICS | {"critics": {"trunk": "shared"}},
        "trimtab, critics of their own": CRITICS | {"critics": {"trunk": "separate"}},
    }
    ours = [_ours(name, material, "constrained", rows, settings, block) for name, block in blocks.items()]
    return [_drawn(side) for side in [*sides, *ours]]


def _drawn(side: Side) -> Side:
    """A side whose values are not compared, since each side has drawn completions of its own."""

    def run() -> Measured:
        return replace(side.run(), values=[])

    return replace(side, run=run)


def brief(completions: list[Any], **kwargs: Any) -> list[float]:
    """`kind: length` with target 20, for trl."""
    from trimtab.rewards.length import Length

    return Length(target=20)(completions=completions, **kwargs)


def _trl(
    name: str, trainer: Any, config: Any, material: Material, rows: list[dict], settings: dict[str, Any], **more: Any
) -> Side:
    def run() -> Measured:
        measured = Measured()
        with _folder() as folder, trl_as_it_comes(), _quiet(), training(measured), _precomputing(measured):
            args = config(output_dir=folder, report_to="none", use_cpu=True, **settings)
            trainer(material.path, args=args, train_dataset=datasets.Dataset.from_list(rows), **more).train()
        return measured

    return Side(name, is_ours=False, run=run)


def _ours(
    name: str, material: Material, stage: str, rows: list[dict], settings: dict[str, Any], block: dict | None = None
) -> Side:
    data = material.write(f"{stage} {name}.jsonl".replace(" ", "-"), rows)

    def run() -> Measured:
        measured = Measured()
        with _folder() as folder, _precomputing(measured):
            stages = {"step": {"kind": stage, "model": {"model_name_or_path": material.path}, "data": data,
                               "must_learn": False, **(block or {}), "train": settings}}  # fmt: skip
            recipe = Path(folder) / "recipe.yaml"
            recipe.write_text(yaml.safe_dump({"output_dir": f"{folder}/runs", "wandb": False, "stages": stages}))
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), training(measured):
                code = runner.train(str(recipe))
            if code:
                raise RuntimeError(said.getvalue())
        return measured

    return Side(name, is_ours=True, run=run)


def _prefer(material: Material, settings: dict[str, Any]) -> Side:
    """`prefer` on the same pairs, whose reference has come with them from `sample`."""
    policy = transformers_engine.load(trl.ModelConfig(model_name_or_path=material.path, dtype="float32"))
    rows = []
    for row in material.pairs:
        prompt = material.prompt(row)
        answers = [material.rendered(row, answer)[len(prompt) :] for answer in ("chosen", "rejected")]
        logps = [sum(row) for row in transformers_engine.logprobs(policy, [prompt] * 2, answers)]
        rows.append({"prompt": row["prompt"], "prompt_ids": prompt, "completion_ids": answers, "ref_logps": logps,
                     "completions": [row["chosen"], row["rejected"]]})  # fmt: skip
    return _ours("trimtab prefer", material, "prefer", rows, settings)


def _precomputing(measured: Measured) -> Any:
    return before(measured, trl.DPOTrainer, "_precompute_ref_logps")


@contextlib.contextmanager
def _folder():
    folder = tempfile.mkdtemp()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _quiet():
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield


def answers(material: Material, batch: int, steps: int) -> list[Side]:
    """`prefer` on 2 to 16 answers of a prompt: what twice the answers cost."""
    settings = COMMON | {"per_device_train_batch_size": batch, "max_steps": steps, "max_length": 2 * LONGEST}
    told = [material.rendered(row, "chosen")[len(material.prompt(row)) :] for row in material.pairs]
    return [
        _lists(f"{count} answers", material, settings, [material.prompt(row) for row in material.pairs],
               [[told[(place + step) % len(told)] for step in range(count)] for place in range(len(told))])
        for count in (2, 4, 8, 16)
    ]  # fmt: skip


def lengths(material: Material, batch: int, steps: int) -> list[Side]:
    """`prefer` on two answers of prompts with 128 to 1024 tokens: what twice the length costs."""
    settings = COMMON | {"per_device_train_batch_size": batch, "max_steps": steps, "max_length": 2 * LONGEST}
    draw, words, rows = Random(0), len(material.tokenizer), range(batch * steps)
    return [
        _lists(f"{length} tokens", material, settings, [draw.choices(range(8, words), k=length) for _ in rows],
               [[draw.choices(range(8, words), k=length // 2) for _ in range(2)] for _ in rows])
        for length in (128, 256, 512, 1024)
    ]  # fmt: skip


def _lists(
    name: str, material: Material, settings: dict[str, Any], prompts: list[list[int]], told: list[list[list[int]]]
) -> Side:
    rows = [
        {"prompt": f"prompt {place}", "completions": ["-"] * len(completions), "prompt_ids": prompt,
         "completion_ids": completions, "ref_logps": [-1.0] * len(completions)}
        for place, (prompt, completions) in enumerate(zip(prompts, told, strict=True))
    ]  # fmt: skip
    return _ours(name, material, "prefer", rows, settings, {"loss": "orpo"})


MODES: dict[str, Callable[[Material, int, int], list[Side]]] = {
    "sft": sft,
    "sft-packed": sft_packed,
    "dpo": dpo,
    "reward": reward,
    "grpo": grpo,
    "answers": answers,
    "lengths": lengths,
}
