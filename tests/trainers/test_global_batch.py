"""With one global batch a training comes to the same weights on any number of ranks, also when it changes on the way."""

import pytest
import torch
from conftest import PAIR_ROWS, SFT_ROWS
from constrained_runs import REWARDS
from launches import trained
from run_steps import run_recipe, write_recipe
from safetensors.torch import load_file

from trimtab.pipelines.recording import artifacts

ROWS = 11  # an epoch ends with a step of three rows
STEPS = {"num_train_epochs": 2, "learning_rate": 1e-2, "optim": "sgd", "max_grad_norm": 1e6, "save_steps": 1,
         "save_total_limit": 9, "logging_steps": 1, "gradient_checkpointing": False,
         "lr_scheduler_type": "constant"}  # fmt: skip
TOLERANCE = 2e-5


def stages(model, lists, prompts, write):
    sft = [{"prompt": "say" + " a b" * (i % 3), "completion": " c" * (1 + i % 4)} for i in range(ROWS)]
    pairs = [{"prompt": "say" + " a b" * (i % 3), "chosen": " a" * (1 + i % 4), "rejected": " c"} for i in range(ROWS)]
    texts = [{"text": "a b c"[: 1 + i % 5] + f" {i}", "label": "xyz"[i % 3]} for i in range(ROWS)]
    data = {"sft": sft, "dpo": pairs, "reward": pairs, "classifier": texts}
    blocks = {name: {"data": write(f"{name}.jsonl", rows)} for name, rows in data.items()}
    blocks["prefer"] = {"data": str(lists["ranked"].output)}
    sampled = {"num_generations": 2, "beta": 0.1, "top_k": 1, "max_completion_length": 6, "max_steps": 3,
               "scale_rewards": "none"}  # fmt: skip
    for kind in ("ppo",):
        blocks[kind] = {"kind": "constrained", "trainer": kind, "data": prompts, "rewards": REWARDS, "method": "xi",
                        "train": sampled}  # fmt: skip
    return {name: {"model": {"model_name_or_path": model}, "batch_size": 8, **block,
                   "train": {**STEPS, "per_device_train_batch_size": 4, **block.get("train", {})}}
            for name, block in blocks.items()}  # fmt: skip


def test_x(model, lists, prompts, write, tmp_path):
    made = {}
    for ranks in (1, 2, 4):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        block = stages(model, lists, prompts, write)
        made[ranks] = run_recipe(folder, block) if ranks == 1 else trained(write_recipe(folder, block, wandb=False), ranks=ranks)
    for name in made[1]:
        assert len({made[r][name].fingerprint for r in made}) == 1
        ws = {r: load_file(made[r][name].output / "model.safetensors") for r in made}
        for r in (2, 4):
            print(name, r, max((ws[r][k] - v).abs().max().item() for k, v in ws[1].items()), artifacts.read_done(made[r][name].dir)["metrics"]["train/steps"])
