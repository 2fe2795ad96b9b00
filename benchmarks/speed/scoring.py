"""Mode `score`: chosen and rejected answers by a reward model, through TRL's GRPO path and `kind: reward_model`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl
from clock import Measured, Side, timed
from material import Material

from trimtab.pipelines.planning import schema

BATCHES = (8, 2, 32)  # completions of a generation batch: TRL's default, fewer and more
AT_ONCE = 256  # completions of a call, as the stage `score` makes them


def score(material: Material, batch: int, steps: int) -> list[Side]:
    """GRPOTrainer._calculate_rewards, in batches of several sizes, and ours; nothing is remembered between runs."""
    torch.manual_seed(0)
    path = str(Path(material.path).with_name(f"{Path(material.path).name}-reward"))
    transformers.AutoModelForSequenceClassification.from_pretrained(material.path, num_labels=1).save_pretrained(path)
    material.tokenizer.save_pretrained(path)
    rows = [(row["prompt"], row[answer]) for row in material.pairs for answer in ("chosen", "rejected")]
    prompts, answers = [prompt for prompt, _ in rows], [answer for _, answer in rows]
    trainer = _grpo(path)
    sides = [
        Side(f"trl, {size} a batch", is_ours=False, run=lambda size=size: _theirs(trainer, prompts, answers, size))
        for size in BATCHES
    ]
    return [*sides, Side("trimtab", is_ours=True, run=lambda: _ours(path, prompts, answers))]


def _ours(path: str, prompts: list[Any], answers: list[Any]) -> Measured:
    measured = Measured()
    reward = schema.load_reward({"kind": "reward_model", "path": path})
    reward.load()
    reward._checkpoint._remembered.clear()
    with timed(measured):
        for start in range(0, len(prompts), AT_ONCE):
            stop = start + AT_ONCE
            measured.values += reward(prompts=prompts[start:stop], completions=answers[start:stop])
    return measured


def _theirs(trainer: trl.GRPOTrainer, prompts: list[Any], answers: list[Any], size: int) -> Measured:
    measured = Measured()
    with timed(measured):
        for start in range(0, len(prompts), size):
            asked, said = prompts[start : start + size], answers[start : start + size]
            inputs = [{"prompt": prompt} for prompt in asked]
            scores = trainer._calculate_rewards(inputs, asked, said, [[] for _ in asked])
            measured.values += scores[:, 0].tolist()
    return measured


def _grpo(model: str) -> trl.GRPOTrainer:
    """TRL's trainer with the reward model, and a policy that is not used."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    tiny = transformers.LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                                    vocab_size=len(tokenizer))  # fmt: skip
    args = trl.GRPOConfig(output_dir=tempfile.mkdtemp(), report_to="none", bf16=False, use_cpu=True)
    prompts = datasets.Dataset.from_list([{"prompt": "a"}] * 8)
    return trl.GRPOTrainer(model=transformers.LlamaForCausalLM(tiny), processing_class=tokenizer, reward_funcs=model,
                           args=args, train_dataset=prompts)  # fmt: skip
