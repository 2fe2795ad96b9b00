"""A training that has learned nothing is an error with its cause, and is not published."""

import json

import pytest
import torch
import trl
from conftest import PAIR_ROWS, PROMPT, SFT_ROWS
from constrained_runs import constrained
from launches import two_ranks
from outputs import metrics_of
from run_steps import broken, refused, run_recipe, write_recipe
from short_trainings import LORA, TRAIN, plan

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import runner
from trimtab.pipelines.training.learning import checksums


@pytest.fixture
def pairs(model, write):
    return {"model": {"model_name_or_path": model}, "data": write("pairs.jsonl", PAIR_ROWS), "train": TRAIN}


@pytest.fixture
def sft(model, write):
    return {"model": {"model_name_or_path": model}, "data": write("sft.jsonl", SFT_ROWS), "train": TRAIN}


def fails(folder, stages, capsys):
    """What a run says that ends with an error in its only step, also when it is started again, and leaves nothing."""
    errors = []
    for _ in range(2):
        assert runner.train(str(write_recipe(folder, stages, wandb=False))) == 2
        errors.append(capsys.readouterr().err.rpartition("error: ")[2])
    (step,) = Recipe.load(str(folder / "recipe.yaml")).steps
    assert not step.done
    assert not step.output.exists()
    assert errors[0] == errors[1]
    return errors[1]


@pytest.mark.parametrize("train", [{}, {"loss_type": "hinge"}, {"loss_type": ["sigmoid", "sft"]}])
def test_beta_0_is_refused_before_a_launch(train, pairs, tmp_path, capsys):
    block = {**pairs, "train": {**TRAIN, "beta": 0, **train}}
    assert "stages.dpo.train.beta: must be above 0, got 0" in refused(tmp_path, {"dpo": block}, capsys)
    if not train:
        assert "stages.kto.train.beta: must be above 0, got 0" in refused(tmp_path, {"kto": block}, capsys)


def test_likelihood_alone_needs_no_beta(pairs, tmp_path):
    block = {**pairs, "train": {**TRAIN, "beta": 0, "loss_type": "sft"}}
    assert run_recipe(tmp_path, {"dpo": block})["dpo"].done


def test_a_learning_rate_of_0_is_a_control_or_a_mistake(sft, tmp_path, capsys):
    still = {**sft, "train": {**TRAIN, "learning_rate": 0}}
    error = refused(tmp_path, {"sft": still}, capsys)
    assert "stages.sft.train.learning_rate: is 0, so nothing is learned. For a control that is meant to stay" in error
    (tmp_path / "control").mkdir()
    control = run_recipe(tmp_path / "control", {"sft": {**still, "must_learn": False}})["sft"]
    assert metrics_of(control)["train/steps"] == 2
    fingerprints = [plan(tmp_path, {"sft": block})["sft"].fingerprint for block in (sft, {**sft, "must_learn": False})]
    assert fingerprints[0] == fingerprints[1]


def test_no_epochs_are_refused(sft, tmp_path, capsys):
    block = {**sft, "train": {"num_train_epochs": 0}}
    assert "stages.sft.train: 0 epochs are no training" in refused(tmp_path, {"sft": block}, capsys)


def test_a_rate_that_rounding_loses_is_an_error(sft, tmp_path, capsys):
    block = {**sft, "train": {**TRAIN, "learning_rate": 1e-30}}
    error = fails(tmp_path, {"sft": block}, capsys)
    assert "stages.sft: learned nothing: every weight is as before" in error
    assert "train.learning_rate (1e-30) is lost in the rounding of torch.float32" in error


def test_the_one_step_of_a_warm_up_is_told_apart_from_a_rate_that_rounding_loses(sft, tmp_path, capsys):
    block = {**sft, "train": {**TRAIN, "max_steps": 1, "warmup_steps": 20}}
    error = fails(tmp_path, {"sft": block}, capsys)
    assert "every weight is as before. A warm-up begins at a rate of 0, and there is one step" in error


def test_adapters_that_learn_nothing_are_an_error(pairs, tmp_path, capsys):
    block = {**pairs, "model": {**pairs["model"], **LORA}, "train": {**TRAIN, "loss_weights": [0.0]}}
    assert "learned nothing: the gradient was 0 in every step" in fails(tmp_path, {"dpo": block}, capsys)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_gradient_of_0_is_an_error_also_where_weights_decay(decay, pairs, tmp_path, capsys):
    block = {**pairs, "train": {**TRAIN, "loss_weights": [0.0], "weight_decay": decay}}
    error = fails(tmp_path, {"dpo": block}, capsys)
    assert "stages.dpo: learned nothing: the gradient was 0 in every step. The loss does not depend on" in error


# a reward's scores -> what is said of it
FLAT = {
    "[1.0] * len(completions)": "gave every completion of every step the same 1.",
    "[None] * len(completions)": "abstained from every completion of every step.",
    "[None if i % 4 else 0.1 for i in range(len(completions))]": "the same 0.1, and abstained from 75%.",
    "[float(len(str(p))) for p in columns['prompts']]": "gave all completions of a prompt the same, in every step.",
}


def one_reward(model, prompts, folder, scores, **options):
    (folder / "mine.py").write_text(f"def mine(completions, **columns):\n    return {scores}\n")
    rewards = {"mine": {"kind": "trl_function", "path": f"{folder / 'mine.py'}:mine"}}
    return constrained(model, prompts, method="fixed", rewards=rewards, train={"max_steps": 2}, **options)


@pytest.mark.parametrize("scores", FLAT)
@pytest.mark.parametrize("trainer", ["grpo", "ppo"])
def test_rewards_that_tell_nothing_apart_are_named(trainer, scores, model, prompts, tmp_path, capsys):
    block = one_reward(model, prompts, tmp_path, scores, trainer=trainer)
    if trainer == "ppo" and "prompts" in scores:  # its critics tell prompts apart
        assert run_recipe(tmp_path, block)["constrained"].done
        return
    error = fails(tmp_path, block, capsys)
    assert "stages.constrained: learned nothing: reward 'mine' " in error
    assert FLAT[scores] in error


def test_the_first_rollout_that_teaches_nothing_is_warned_about(model, prompts, tmp_path, capsys):
    block = one_reward(model, prompts, tmp_path, next(iter(FLAT)))
    assert runner.train(str(write_recipe(tmp_path, block, wandb=False))) == 2
    said = capsys.readouterr().out
    assert said.count("nothing to learn from") == 1
    assert "step 0: this rollout has nothing to learn from: 'mine' told no two completions of a prompt apart" in said


@pytest.mark.parametrize("score", ["1e308", "-1e30", "(1e308 if completions else 0)"])
def test_a_score_that_would_overflow_is_a_failure_and_no_training(score, model, prompts, tmp_path, capsys):
    block = one_reward(model, prompts, tmp_path, f"[{score} * (i % 2) for i in range(len(completions))]")
    error = broken(tmp_path, block, capsys)
    assert "reward 'mine' failed on completion 1" in error
    assert "overflows in a training" in error


def test_weights_of_0_are_refused(model, prompts, tmp_path, capsys):
    rewards = {"brief": {"kind": "length", "target": 5, "weight": 0}}
    block = constrained(model, prompts, method="fixed", rewards=rewards)
    assert "stages.constrained.rewards: every reward has `weight: 0`" in refused(tmp_path, block, capsys)


def test_fewer_prompts_than_a_rollout_needs_are_refused(model, write, tmp_path, capsys):
    few = write("few.jsonl", [{"prompt": PROMPT}] * 5)
    cure = "a rollout needs 8 different prompts, there are 5: lower per_device_train_batch_size"
    for train in (
        {"per_device_train_batch_size": 32},
        {"gradient_accumulation_steps": 4},
        {"steps_per_generation": 4},
    ):
        error = refused(tmp_path, constrained(model, few, train=train), capsys)
        assert f"stages.constrained.data: {cure}" in error
    assert run_recipe(tmp_path, constrained(model, few, train={"max_steps": 3}))["constrained"].done


def test_a_data_set_that_ends_early_is_an_error(sft, tmp_path, capsys):
    block = {**sft, "train": {**TRAIN, "per_device_train_batch_size": 16, "dataloader_drop_last": True}}
    error = fails(tmp_path, {"sft": block}, capsys)
    assert "stages.sft: took 0 of 2 steps: 12 rows make no batch of 16 on every rank" in error


def test_rows_that_are_all_too_long_are_an_error(pairs, tmp_path, capsys):
    error = refused(tmp_path, {"reward": {**pairs, "train": {**TRAIN, "max_length": 1}}}, capsys)
    assert "max_length" in error


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_smallest_change_of_one_weight_is_a_change(dtype):
    layer = torch.nn.Linear(7, 5).to(dtype)
    layer.bias.requires_grad_(False)
    before = checksums(layer)
    assert before.keys() == {"weight"}
    with torch.no_grad():
        layer.bias += 1
        assert checksums(layer) == before
        layer.weight[3, 2] = torch.nextafter(layer.weight[3, 2], torch.tensor(9.0, dtype=dtype))
    assert checksums(layer) != before


def test_an_evaluation_that_fails_costs_no_training(sft, tmp_path, monkeypatch, caplog, capsys):
    block = {**sft, "eval_data": sft["data"], "audit": {"overlap": "warn"}}
    (tmp_path / "undisturbed").mkdir()
    undisturbed = run_recipe(tmp_path / "undisturbed", {"sft": block})["sft"]

    def fail(self, *args, **kwargs):
        raise IndexError("target 2 is out of bounds")

    with monkeypatch.context() as patch:
        patch.setattr(trl.SFTTrainer, "evaluate", fail)
        assert "IndexError: target 2 is out of bounds" in broken(tmp_path, {"sft": block}, capsys)
    assert "trained and saved in" in caplog.text
    assert "only evaluates" in caplog.text
    monkeypatch.setattr(trl.SFTTrainer, "training_step", fail)
    again = run_recipe(tmp_path, {"sft": block})["sft"]
    records = [json.loads((step.dir / "done.json").read_text()) for step in (undisturbed, again)]
    assert len({record["files"]["model.safetensors"]["sha256"] for record in records}) == 1
    assert records[0]["metrics"]["eval/loss"] == records[1]["metrics"]["eval/loss"]
    assert records[1]["metrics"]["train/resumed_from"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fsdp2", "zero2", "zero3"])
def test_split_weights_tell_it_by_their_gradient(engine, pairs, tmp_path):
    """That one which learns is not told so: tests/running/test_engines.py."""
    train = {**TRAIN, "per_device_train_batch_size": 2}
    recipe = write_recipe(tmp_path, {"dpo": {**pairs, "train": {**train, "loss_weights": [0.0]}}}, wandb=False)
    for _ in range(2):  # from the checkpoint of the last step, too
        code, out = two_ranks(recipe, config=engine)
        assert code != 0
        assert "learned nothing: the gradient was 0 in every step" in out
