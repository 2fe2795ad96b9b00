"""GRPO and PPO: loss, weights and every metric are those of the completions, whatever batches, ranks and padding."""

import pytest
import torch
from constrained_runs import REWARDS
from datasets import Dataset, load_dataset
from launches import trained
from outputs import metrics_of
from run_steps import run_recipe, write_recipe
from safetensors.torch import load_file
from tiny_trainers import grpo_trainer

from trimtab.pipelines.algorithms.advantages import CriticSettings
from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers
from trimtab.pipelines.algorithms.objectives import Lagrangian
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.trainers.constrained_grpo import ConstrainedGRPOTrainer
from trimtab.pipelines.trainers.constrained_ppo import ConstrainedPPOTrainer
from trimtab.pipelines.training.compute_once import compute_once

TRAIN = {
    "beta": 0.1,
    "num_generations": 4,
    "max_completion_length": 8,
    "optim": "sgd",
    "learning_rate": 0.2,
    "max_grad_norm": 1e6,
    "lr_scheduler_type": "constant",
    "max_steps": 3,
    "logging_steps": 1,
    "save_strategy": "no",
    "scale_rewards": "none",
    "num_iterations": 2,
    "disable_tqdm": True,
}
SPLITS = [(4, 2), (2, 4), (1, 8)]
NOT_COMPARED = ("time", "per_second", "flos", "epoch")


def made(kind, model, prompts, folder, **train):
    """A trainer that maximises one reward and holds two at thresholds, so that all of the loss is learned from."""
    constraints = {"brief": Constraint(0.5, "equal"), "as": Constraint(0.4, "equal")}
    objective = Lagrangian({"as": 1.0}, Multipliers(constraints))
    extra = {"objective": objective, **train.pop("extra", {})}
    if kind == "ppo":
        trainer = grpo_trainer(ConstrainedPPOTrainer, model, prompts, folder, {**TRAIN, **train},
                               critics=CriticSettings(trunk="shared"), **extra)  # fmt: skip
    else:
        trainer = grpo_trainer(ConstrainedGRPOTrainer, model, prompts, folder, {**TRAIN, **train}, **extra)
    compute_once(trainer)
    return trainer


def outcome(trainer):
    trainer.train()
    logs = [{key: value for key, value in row.items() if not any(word in key for word in NOT_COMPARED)}
            for row in trainer.state.log_history]  # fmt: skip
    return logs, {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def assert_same(ours, theirs):
    assert len(ours[0]) == len(theirs[0])
    for row, other in zip(ours[0], theirs[0], strict=True):
        assert row == pytest.approx(other, abs=2e-5)
    for name, value in theirs[1].items():
        torch.testing.assert_close(ours[1][name], value, atol=5e-6, rtol=0)


@pytest.fixture(scope="module")
def whole(model, prompts, tmp_path_factory):
    """The outcome with one micro-batch for a step, by the kind of the trainer."""
    folder = tmp_path_factory.mktemp("whole")
    return {
        kind: outcome(made(kind, model, prompts, folder / kind, per_device_train_batch_size=8, steps_per_generation=2))
        for kind in ("grpo", "ppo")
    }


@pytest.mark.parametrize("kind", ["grpo", "ppo"])
def test_what_is_compared_moves(kind, whole, model):
    logs, weights = whole[kind]
    start = load_file(f"{model}/model.safetensors")
    assert max(float((weights[name] - start[name]).abs().max()) for name in start) > 1e-3
    assert len({row["train_loss" if "train_loss" in row else "loss"] for row in logs}) == 4
    assert {"kl", "entropy", "rewards/as/mean", "lambda/as"} <= logs[0].keys()
    if kind == "ppo":
        assert {"critics/loss", "critics/as/explained"} <= logs[0].keys()


@pytest.mark.parametrize(("size", "parts"), SPLITS, ids=str)
@pytest.mark.parametrize("kind", ["grpo", "ppo"])
def test_accumulation_changes_nothing(kind, size, parts, whole, model, prompts, tmp_path):
    """The rollouts are the same, of two steps at once; within a rank trl shuffles them by one state of chance."""
    split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts,
             "steps_per_generation": 2 * parts}  # fmt: skip
    assert_same(outcome(made(kind, model, prompts, tmp_path, **split)), whole[kind])


def evaluated(kind, model, prompts, folder, size, rows=7):
    """The metrics of an evaluation of the first prompts, whose completions are the most likely ones."""
    data = load_dataset("json", data_files=prompts, split="train").select(range(rows))
    train = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": size, "num_generations_eval": 1,
             "top_k": 1, "extra": {"eval_dataset": Dataset.from_list(list(data))}}  # fmt: skip
    trainer = made(kind, model, prompts, folder, **train)
    with torch.no_grad():
        trainer.model.lm_head.weight.mul_(1.5)  # so that there is a KL to the start
    return {key: value for key, value in trainer.evaluate().items() if not any(w in key for w in NOT_COMPARED)}


@pytest.mark.parametrize("kind", ["grpo", "ppo"])
def test_an_evaluation_does_not_depend_on_its_batches(kind, model, prompts, tmp_path):
    whole = evaluated(kind, model, prompts, tmp_path, 7)
    assert whole["eval_kl"] > 1e-4
    assert whole["eval_rewards/brief/std"] > 0, whole
    for size in (1, 3, 4):
        cut = evaluated(kind, model, prompts, tmp_path, size)
        assert cut.keys() == whole.keys()
        assert cut == pytest.approx(whole, abs=2e-5)


@pytest.mark.slow
def test_two_ranks_are_one(model, prompts, tmp_path):
    """Each step learns from a whole rollout: of a part, trl shuffles what every rank has by itself.

    The evaluation, whose last batch is uneven, takes the likeliest tokens.
    """
    steps = []
    for ranks in (1, 2):
        train = {**TRAIN, "num_generations": 2, "num_generations_eval": 1, "eval_strategy": "steps",
                 "eval_steps": 1, "per_device_train_batch_size": 8 // ranks, "per_device_eval_batch_size": 4 // ranks,
                 "gradient_checkpointing": False}  # fmt: skip
        rewards = {name: {key: value for key, value in block.items() if key != "threshold"}
                   for name, block in REWARDS.items()}  # fmt: skip
        block = {"kind": "constrained", "method": "fixed", "trainer": "ppo", "model": {"model_name_or_path": model},
                 "data": prompts, "eval_data": {"path": prompts, "split": "train[:7]"}, "rewards": rewards,
                 "critics": {"trunk": "shared"}, "train": train, "audit": {"overlap": "warn"}}  # fmt: skip
        folder = tmp_path / str(ranks)
        folder.mkdir()
        made_by = run_recipe(folder, {"ppo": block}) if ranks == 1 else trained(
            write_recipe(folder, {"ppo": block}, wandb=False)
        )  # fmt: skip
        steps.append(made_by["ppo"])
    logs = []
    for step in steps:
        rows = tracking.read(step.dir / "metrics.jsonl")
        logs.append([{key: value for key, value in row.items() if not any(word in key for word in NOT_COMPARED)}
                     for row in rows])  # fmt: skip
    named = {name for row in logs[0] for name in row}
    assert {"train/loss", "train/critics/loss", "train/kl", "eval/loss", "eval/rewards/brief/std"} <= named
    for one, two in zip(*logs, strict=True):
        assert two == pytest.approx(one, abs=5e-5)
    tensors = [load_file(step.output / "model.safetensors") for step in steps]
    for name, value in tensors[0].items():
        torch.testing.assert_close(tensors[1][name], value, atol=1e-5, rtol=0)
    assert metrics_of(steps[1])["train/steps"] == 3
