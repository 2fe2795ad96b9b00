"""Training in two steps with a warm optimizer is training in one."""

import pytest
import torch
from outputs import rows_of
from run_steps import broken, refused, run_recipe
from safetensors import safe_open
from safetensors.torch import load_file
from short_trainings import LORA, apo, plan

from trimtab.pipelines.training import warm_starts

CONSTANT = {"lr_scheduler_type": "constant", "learning_rate": 1e-3}


CLASSES = {
    "lion": {"class": "pytorch_optimizer.Lion"},
    "frugal": {"class": "frugal", "density": 0.5, "update_gap": 2},
    "factored": {"class": "m_fac", "gradients": 2, "damp": 0.1},
    "schedule-free": {"class": "pytorch_optimizer.ScheduleFreeAdamW"},  # which counts for its groups
}


def handed_on(block, lists, optim, then):
    """One run of 5 steps on all rows at once, and one of 3 that another of 2 goes on with."""
    everything = {**CONSTANT, "per_device_train_batch_size": len(rows_of(lists["ranked"]))}
    named = CLASSES.get(optim)
    everything |= {} if named else {"optim": optim}
    block = {**block, "loss": "rrhf", **({"optimizer": named} if named else {})}

    def steps(count):
        return {"train": {**block["train"], **everything, "max_steps": count}}

    if named and "optimizer" in then:
        then = {"optimizer": {**named, "state": then["optimizer"]}}
    second = {**block, "model": {**block["model"], "model_name_or_path": "$first"}, **steps(2), **then}
    return {"whole": {**block, **steps(5)}, "first": {**block, **steps(3), "keep_optimizer": True}, "second": second}


def distance(ran):
    whole, second = (load_file(ran[name].output / "model.safetensors") for name in ("whole", "second"))
    return max((whole[name] - second[name]).abs().max().item() for name in whole)


@pytest.mark.parametrize("optim", ["adamw_torch", "rmsprop", "adafactor", *CLASSES])
def test_two_steps_are_one(optim, block, lists, tmp_path):
    assert distance(run_recipe(tmp_path, handed_on(block, lists, optim, {"optimizer": "$first"}))) < 1e-5


def test_a_fresh_optimizer_is_another_run(block, lists, tmp_path):
    ran = run_recipe(tmp_path, handed_on(block, lists, "adamw_torch", {}))
    assert distance(ran) > 1e-4
    assert not (ran["second"].output / warm_starts.STATE).exists()  # kept only where asked for
    with safe_open(ran["first"].output / warm_starts.STATE, framework="pt") as file:
        assert file.metadata()["optimizer"] == "AdamW"
        assert file.get_tensor("lm_head.weight/exp_avg_sq").dtype == torch.float32
        assert file.get_tensor("lm_head.weight/step").item() == 3


def test_the_state_of_another_optimizer_is_refused(block, lists, tmp_path, capsys):
    other = {"optimizer": "$first", "train": {**block["train"], "optim": "sgd", "max_steps": 1}}
    stages = handed_on(block, lists, "adamw_torch", other)
    message = "is the state of AdamW, and `optimizer` or `train.optim` makes this one SGD"
    assert message in broken(tmp_path, stages, capsys)


def test_what_cannot_be_warm_is_refused_before_training(block, lists, model, tmp_path, capsys, monkeypatch):
    assert "has no optimizer state: train it with `keep_optimizer: true`" in refused(
        tmp_path, {"prefer": {**block, "optimizer": model}}, capsys
    )
    lora = {**block, "model": {**block["model"], **LORA}, "keep_optimizer": True}
    assert "new adapters" in refused(tmp_path, {"prefer": lora}, capsys)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert "FSDP splits the optimizer's state" in refused(
        tmp_path, {"prefer": {**block, "keep_optimizer": True}}, capsys
    )


def test_the_rounds_of_apo_hand_it_on(tmp_path, model):
    prompts = str(tmp_path / "prompts.jsonl")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "say a"}\n' * 6)
    for loss in ("dpo", "robust"):  # a list loss and one of trl
        steps = plan(tmp_path, apo(model, prompts, loss=loss, optimizer="warm"))
        one, two, last = (steps[name] for name in ("apo-1", "apo-2", "apo"))
        assert [step.options.get("keep_optimizer", False) for step in (one, two, last)] == [True, True, False]
        states = [None, {"state": str(one.output)}, {"state": str(two.output)}]
        assert [step.options.get("optimizer") for step in (one, two, last)] == states
    fresh = plan(tmp_path, apo(model, prompts))
    assert not any(step.options.get("optimizer") or step.options.get("keep_optimizer") for step in fresh.values())
