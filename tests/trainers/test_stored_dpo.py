"""DPO on packed rows with a stored reference has the losses, gradients and metrics of trl's own trainer."""

import math
from types import SimpleNamespace

import pytest
import torch
import trl
from datasets import Dataset

from trimtab.pipelines.trainers import stored_dpo
from trimtab.pipelines.trainers.seams.trl import use_lean_head_on_cpu
from trimtab.pipelines.trainers.stored_dpo import StoredReferenceDPOTrainer, _meets_every_row
from trimtab.pipelines.trainers.whole_steps import DPOTrainer
from trimtab.pipelines.training.compute_once import compute_once
from trimtab.rewards._packing import packs

LOSSES = [  # trl adds those of one run up
    ["sigmoid"],
    ["hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard"],
    ["aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"],
]
PROMPTS = ["say a b and then " * (1 + number % 4) for number in range(8)]
ROWS = Dataset.from_dict({
    "prompt": PROMPTS,
    "chosen": [" a" * (2 + number) for number in range(8)],
    "rejected": [" b c" * (9 - number) for number in range(8)],
})  # fmt: skip


def trained(trainer_class, model, folder, **keys):
    """What is logged of four steps, and the weights after them."""
    args = trl.DPOConfig(output_dir=str(folder), report_to="none", use_cpu=True, bf16=False, disable_tqdm=True,
                         max_steps=4, logging_steps=1, per_device_train_batch_size=4, learning_rate=1e-3,
                         label_smoothing=0.1, save_strategy="no", **keys)  # fmt: skip
    trainer = trainer_class(model=model, args=args, train_dataset=ROWS)
    if trainer_class is DPOTrainer:
        compute_once(trainer)
        assert packs(trainer.model)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return trainer, rows, torch.cat([weight.detach().flatten() for weight in trainer.model.parameters()])


@pytest.mark.parametrize("losses", LOSSES, ids=lambda losses: losses[0])
def test_four_steps_are_those_of_trl(losses, model, tmp_path):
    use_lean_head_on_cpu()
    _, theirs, weights = trained(trl.DPOTrainer, model, tmp_path, loss_type=losses)
    trainer, ours, mine = trained(DPOTrainer, model, tmp_path, loss_type=losses)
    assert trainer.ref_model is None
    assert len(ours) == len(theirs) == 4
    for row, expected in zip(ours, theirs, strict=True):
        for key in expected.keys() - {"epoch"}:
            assert row[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-5), key
    assert torch.allclose(mine, weights, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_first_loss_is_that_of_two_equal_models(dtype, model, tmp_path):
    keys = {"model_init_kwargs": {"dtype": dtype}}
    _, rows, _ = trained(DPOTrainer, model, tmp_path, loss_type="sigmoid", **keys)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_a_few_steps_of_many_rows_ask_the_reference_for_those_only(model, tmp_path):
    few = {"per_device_train_batch_size": 1, "max_steps": 2}
    args = trl.DPOConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, **few)
    trainer = DPOTrainer(model=model, args=args, train_dataset=ROWS)
    assert trainer.ref_model is not None
    assert "ref_chosen_logps" not in trainer.train_dataset.column_names


@pytest.mark.parametrize(("steps", "epochs", "meets"), [
    (-1, 1, True), (-1, 0.5, False), (1, 9, False), (2, 1, False), (3, 0.1, True),
])  # fmt: skip
def test_the_reference_is_asked_ahead_where_all_rows_are_met(steps, epochs, meets):
    """Ten rows, four in a step: three steps meet them all."""
    settings = SimpleNamespace(max_steps=steps, num_train_epochs=epochs, per_device_train_batch_size=2,
                               gradient_accumulation_steps=2, world_size=1)  # fmt: skip
    assert _meets_every_row(settings, Dataset.from_list([{"prompt": str(n)} for n in range(10)])) == meets
    assert not _meets_every_row(settings, None)


@pytest.mark.parametrize(("given", "rows", "ranks", "asked"), [
    (None, 8, 1, 4), (None, 6, 1, 3), (2, 6, 1, 2), (None, 8, 2, 2), (None, 1, 1, 1),
])  # fmt: skip
def test_under_zero_3_the_reference_is_asked_in_two_batches_at_least(given, rows, ranks, asked, monkeypatch):
    """Of four rows each where there are enough: a single pass of it ends in an error of the engine's."""
    settings = SimpleNamespace(sync_ref_model=True, precompute_ref_log_probs=True, precompute_ref_batch_size=given,
                               per_device_train_batch_size=4, world_size=ranks)  # fmt: skip
    monkeypatch.setattr(stored_dpo, "sharding", lambda: "DEEPSPEED")
    monkeypatch.setattr(trl.DPOTrainer, "__init__", lambda *args, **kwargs: None)
    StoredReferenceDPOTrainer(args=settings, train_dataset=range(rows))
    assert settings.precompute_ref_batch_size == asked
