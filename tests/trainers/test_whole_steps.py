"""With one global batch TRL's trainers come to the same weights on any ranks, also where these change on the way."""

import pytest
import torch
from constrained_runs import resumed
from launches import trained
from outputs import metrics_of
from run_steps import run_recipe, write_recipe
from safetensors.torch import load_file

from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.trainers.micro_batches import MicroBatchTrainer
from trimtab.pipelines.trainers.whole_steps import Part, pairs_of

ROWS = 11  # an epoch ends with a step of three rows: on four ranks of two rows one is full, one in part, two are empty
FOUR = Ranks(every=4)
NOT_COMPARED = ("time", "per_second", "flos", "epoch", "seconds")
OF_PAIRS = ("rewards/accuracies", "logits/", "entropy", "token_accuracy")  # of ratios of 0, and means over tokens
TRAIN = {"num_train_epochs": 2, "learning_rate": 0.5, "optim": "sgd", "max_grad_norm": 1e6, "save_steps": 1,
         "save_total_limit": 9, "logging_steps": 1, "gradient_checkpointing": False, "beta": 0.5,
         "lr_scheduler_type": "constant"}  # fmt: skip
PAIRS = [
    {"prompt": "say" + " a b" * (i % 3), "chosen": " a" * (1 + i % 4), "rejected": f" c {i}"} for i in range(ROWS)
]
ANSWERS = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in PAIRS]


@pytest.fixture
def stages(model, write):
    """A stage for each of these trainers, whose two epochs are four steps, of eight rows and of three."""
    data = {"sft": write("answers.jsonl", ANSWERS), **dict.fromkeys(("dpo", "reward"), write("pairs.jsonl", PAIRS))}

    def block(name, tokens=None, **train):
        given = {key: value for key, value in TRAIN.items() if key != "beta" or name == "dpo"}
        sizes = {"batch_size": 8, **({"tokens_per_batch": tokens} if tokens else {})}
        return {"model": {"model_name_or_path": model}, "data": data[name], **sizes, "train": given | train}

    return lambda tokens=None, **train: {name: block(name, tokens, **train) for name in data}


def assert_same(step, other, name):
    ours, theirs = (load_file(each.output / "model.safetensors") for each in (step, other))
    furthest = {key: float((value - theirs[key]).abs().max()) for key, value in ours.items()}
    assert max(furthest.values()) < 2e-5, (name, furthest)


def test_the_pairs_of_a_part_are_those_of_both_halves():
    """Of three pairs the last two: what has a row for each answer, for each pair, or is none of the two."""
    chosen, rejected = torch.arange(3), torch.arange(10, 13)
    batch = {
        "input_ids": torch.cat([chosen, rejected])[:, None],
        "margin": torch.tensor([0.1, 0.2, 0.3]),
        "scale": torch.tensor(2.0),
        "other": torch.arange(4),
        "words": ["a", "b", "c"],
    }
    taken = pairs_of(batch, Part(1, 3, 1.0))
    assert taken["input_ids"].tolist() == [[1], [2], [11], [12]]
    assert taken["margin"].tolist() == pytest.approx([0.2, 0.3])
    for name in ("scale", "other", "words"):
        assert taken[name] is batch[name]


def in_folder(tmp_path, name):
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_micro_batches_change_nothing_also_in_the_last_step_of_an_epoch(stages, model, tmp_path):
    whole = run_recipe(in_folder(tmp_path, "whole"), stages(per_device_train_batch_size=8))
    cut = run_recipe(in_folder(tmp_path, "cut"), stages(per_device_train_batch_size=2))
    start = load_file(f"{model}/model.safetensors")
    for name, step in whole.items():
        assert (str(step.batch), str(cut[name].batch)) == ("8 = 8 x 1 x 1", "8 = 2 x 4 x 1")
        assert step.fingerprint == cut[name].fingerprint
        moved = load_file(step.output / "model.safetensors")
        assert max(float((moved[key] - start[key]).abs().max()) for key in start if key in moved) > 1e-2
        assert_same(step, cut[name], name)


def logged(step):
    left_out = (*NOT_COMPARED, *(OF_PAIRS if step.kind == "dpo" else ()))
    rows = tracking.read(step.dir / "metrics.jsonl")
    return [{key: value for key, value in row.items() if not any(word in key for word in left_out)} for row in rows]


def test_micro_batches_by_tokens_change_nothing(stages, tmp_path, monkeypatch):
    """Neither weights nor what is logged; the micro-batches of a step have one to five rows."""
    sizes = {}
    collate = MicroBatchTrainer._cut_by_tokens

    def noted(trainer, rows):
        batches, step = collate(trainer, rows)
        sizes.setdefault(type(trainer).__name__, []).append(step.sizes)
        return batches, step

    monkeypatch.setattr(MicroBatchTrainer, "_cut_by_tokens", noted)
    whole = run_recipe(in_folder(tmp_path, "whole"), stages(per_device_train_batch_size=8))
    assert not sizes
    cut = run_recipe(in_folder(tmp_path, "cut"), stages(tokens=30))
    assert sizes.keys() == {"SFTTrainer", "DPOTrainer", "RewardTrainer"}
    assert all(list(map(sum, of_steps)) == [8, 3, 8, 3] for of_steps in sizes.values())
    assert all(min(map(len, of_steps)) < max(map(len, of_steps)) for of_steps in sizes.values())
    assert all(len(set(of_steps[0])) > 1 for of_steps in sizes.values())
    for name, step in whole.items():
        assert str(cut[name].batch) == "8 = 8 x 1 by 30 tokens"
        assert step.fingerprint == cut[name].fingerprint
        for ours, theirs in zip(logged(cut[name]), logged(step), strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4), name
        assert_same(step, cut[name], name)


@pytest.mark.slow
def test_ranks_change_nothing_also_where_a_run_goes_on_with_more_or_fewer(stages, tmp_path):
    alone = run_recipe(in_folder(tmp_path, "alone"), stages())
    four = trained(write_recipe(in_folder(tmp_path, "four"), stages(), wandb=False), ranks=4)
    more, fewer = (
        write_recipe(in_folder(tmp_path, name), stages(tokens), wandb=False)
        for name, tokens in (("more", 30), ("fewer", None))
    )
    for name in alone:
        resumed(more.parent, alone[name], 1, FOUR)
        resumed(fewer.parent, four[name], 3)
    on_four, on_one = trained(more, ranks=4), run_recipe(fewer.parent, stages())
    for name, step in alone.items():
        assert len({steps[name].fingerprint for steps in (alone, four, on_four, on_one)}) == 1
        assert [metrics_of(steps[name])["train/resumed_from"] for steps in (on_four, on_one)] == [1, 3]
        for other in (four, on_four, on_one):
            assert_same(step, other[name], name)
