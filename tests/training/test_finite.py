"""What is no number: a loss at any step, and weights in a file that was written."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from trimtab.pipelines.training.at_hand import BatchAtHand
from trimtab.pipelines.training.finite import check_written
from trimtab.pipelines.training.recorder import Recorder

WEIGHTS = {"a.weight": torch.ones(2, 3), "b.count": torch.ones(4, dtype=torch.long)}  # 10 numbers


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_a_loss_or_gradient_that_is_no_number_ends_a_training(name, value):
    args = SimpleNamespace(fp16=False, learning_rate=0.1, output_dir="checkpoints")
    state = SimpleNamespace(global_step=7, is_world_process_zero=True)
    with pytest.raises(FloatingPointError, match=f"{name} is not a number at step 7: .* Lower train.learning_rate"):
        Recorder().on_log(args, state, None, {"loss": 1.0, name: value})


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({"a.weight": torch.tensor([1.0, math.nan])}, FloatingPointError, "a.weight has a value that is not a number"),
        ({"a.weight": torch.tensor([math.inf])}, FloatingPointError, "a.weight has a value that is not a number"),
        ({"a.weight": torch.ones(0)}, ValueError, "a.weight is empty: the share of a rank was not gathered"),
        ({"b.count": torch.ones(4)}, ValueError, "has 4 of the model's 10 numbers: a save has lost some"),
    ],
)
def test_a_file_with_weights_that_are_none_is_not_published(weights, error, message, tmp_path):
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(error, match=message):
        check_written(tmp_path, 10)


def test_a_whole_file_of_numbers_is(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    check_written(tmp_path, 10)


def test_the_rows_at_hand_are_told_with_what_is_no_number(tmp_path):
    batches = [
        {"input_ids": torch.tensor([[1, 2], [3, 0]]), "ref_logps": torch.tensor([[0.5], [math.nan]])},
        [{"prompt": [{"role": "user", "content": "say a"}], "level": 3}],
    ]
    trainer = SimpleNamespace(
        get_batch_samples=lambda *_: (batches, 3),
        accelerator=SimpleNamespace(process_index=1),
        state=SimpleNamespace(global_step=4),
        processing_class=SimpleNamespace(decode=lambda ids, skip_special_tokens: f"words {ids.tolist()}"),
    )
    at_hand = BatchAtHand(trainer)
    assert trainer.get_batch_samples(None, 2, "cpu") == (batches, 3)
    path = at_hand.save(tmp_path)
    assert path.name == "batch-1.json"
    assert json.loads(path.read_text()) == {
        "after_step": 4,
        "rows": [
            {"input_ids": "words [1, 2]"},
            {"input_ids": "words [3, 0]", "no_number": ["ref_logps"]},
            {"prompt": "say a"},
        ],
    }
