"""Trainers on a few rows that are made by hand, for a look at one batch or one step."""

from functools import partial
from inspect import signature
from typing import Any

import trl
from datasets import Dataset, load_dataset

from trimtab.pipelines.algorithms import losses
from trimtab.pipelines.trainers.lists import ListTrainer
from trimtab.pipelines.trainers.reward_functions import RewardFunction
from trimtab.rewards.length import Length
from trimtab.rewards.pattern import Pattern

CPU = {"use_cpu": True, "bf16": False, "report_to": "none", "gradient_checkpointing": False}
ONE_STEP = {**CPU, "max_steps": 1, "logging_steps": 1, "save_strategy": "no", "per_device_train_batch_size": 2}


def reward_functions() -> list[RewardFunction]:
    """The two rewards of constrained_runs.REWARDS, as trl calls them."""
    brief, count = Length(target=5, unit="characters"), Pattern(regex="a", count=True)
    return [RewardFunction("brief", brief), RewardFunction("as", count)]


def grpo_trainer(
    trainer: type, model: str, prompts: str, folder, train: dict[str, Any], config: type = trl.GRPOConfig, **extra: Any
) -> Any:
    """A trainer of GRPO's kind with those rewards; `train` are keys of `config`."""
    args = config(str(folder), **{**CPU, **train})
    data = load_dataset("json", data_files=prompts, split="train")
    return trainer(model=model, reward_funcs=reward_functions(), args=args, train_dataset=data, **extra)


def first_batch(trainer: Any, size: int) -> dict[str, Any]:
    """The first batch that a GRPO trainer would learn from, of `size` completions of its first prompt."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    prompt = trainer.train_dataset[0]["prompt"]
    return trainer._prepare_inputs([{"prompt": prompt} for _ in range(size)])


def list_trainer(
    model: str,
    rows: list[dict[str, Any]],
    folder,
    loss: str = "dpo",
    eval_rows: Any = None,
    mask: Any = None,
    **train: Any,
) -> ListTrainer:
    """A ListTrainer on those rows; `train` are keys of trl.SFTConfig."""
    args = trl.SFTConfig(str(folder), **{**CPU, **train})
    function = losses.named(loss)
    constants = {"beta": 0.1, "epsilon": 0.01}
    function = partial(function, **{key: constants[key] for key in constants.keys() & signature(function).parameters})
    data = {"train_dataset": Dataset.from_list(rows)}
    if eval_rows is not None:
        data["eval_dataset"] = Dataset.from_list(eval_rows)
    return ListTrainer(loss=function, args=args, model=model, mask=mask, **data)
