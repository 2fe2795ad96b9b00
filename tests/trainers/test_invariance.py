"""Loss, gradient and every metric of our trainers are those of the rows, whatever batches, ranks and padding."""

import shutil

import pytest
import torch
import trl
from constrained_runs import resumed
from datasets import Dataset
from launches import TWO, trained
from outputs import metrics_of
from run_steps import run_recipe, write_recipe
from safetensors.torch import load_file
from tiny_trainers import CPU, list_trainer
from transformers import AutoTokenizer

from trimtab.pipelines.recording import tracking
from trimtab.pipelines.trainers import micro_batches
from trimtab.pipelines.trainers.classifier import ClassifierTrainer
from trimtab.pipelines.trainers.listwise_reward import ListwiseRewardTrainer

ROWS, EVALUATED = 11, 5  # neither is a multiple of a batch: an epoch ends with a step of three rows
SPLITS = [(8, 1), (4, 2), (2, 4), (1, 8)]  # rows of a micro-batch, and micro-batches of an optimizer step
PLAIN_DESCENT = {
    "optim": "sgd",
    "learning_rate": 0.5,
    "max_grad_norm": 1e6,
    "lr_scheduler_type": "constant",
    "num_train_epochs": 2,
    "logging_steps": 1,
    "save_strategy": "no",
    "eval_strategy": "epoch",
    "disable_tqdm": True,
}
NOT_COMPARED = ("time", "per_second", "flos", "epoch")  # `epoch` is upstream's share of micro-batches


def list_rows(count):
    """Rows of two to four answers, of different lengths."""
    rows = []
    for i in range(count):
        answers = [[7 + i + k] * (1 + (i + k) % 4) for k in range(2 + i % 3)]
        rows.append({"prompt_ids": [5] * (1 + i % 3), "completion_ids": answers,
                     "ref_logps": [-2.0 * len(ids) for ids in answers]})  # fmt: skip
    return rows


def ranking_rows(count):
    return [
        {"prompt": f"say {i}" + " a" * (i % 4), "completions": ["b " * (1 + i % 3), "c", "a d"][: 2 + i % 2]}
        for i in range(count)
    ]


def labelled_rows(count):
    return [{"text": "a b c"[: 1 + i % 5] + f" {i}", "label": "xyz"[i % 3]} for i in range(count)]


def lists(model, folder, **train):
    return list_trainer(model, list_rows(ROWS), folder, eval_rows=list_rows(EVALUATED), **train)


def listwise(model, folder, **train):
    args = trl.RewardConfig(str(folder), **{**CPU, "center_rewards_coefficient": 0.1, **train})
    data = {"train_dataset": ranking_rows(ROWS), "eval_dataset": ranking_rows(EVALUATED)}
    return ListwiseRewardTrainer(
        model=model, args=args, **{key: Dataset.from_list(rows) for key, rows in data.items()}
    )


def classifier(model, folder, **train):
    args = trl.RewardConfig(str(folder), **{**CPU, "model_init_kwargs": {}, **train})
    data = {"train_dataset": labelled_rows(ROWS), "eval_dataset": labelled_rows(EVALUATED)}
    datasets = {key: Dataset.from_list(rows) for key, rows in data.items()}
    return ClassifierTrainer(model=model, args=args, classes=["x", "y", "z"], **datasets)


TRAINERS = {"lists": lists, "listwise": listwise, "classifier": classifier}


def outcome(trainer):
    """(what a training has logged but for times, a dictionary for each log; the weights that it has come to)."""
    trainer.train()
    logs = list(map(compared, trainer.state.log_history))
    return logs, {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def compared(row):
    return {key: value for key, value in row.items() if not any(word in key for word in NOT_COMPARED)}


def assert_same(ours, theirs):
    assert len(ours[0]) == len(theirs[0])
    for row, other in zip(ours[0], theirs[0], strict=True):
        assert row == pytest.approx(other, abs=2e-5)
    for name, value in theirs[1].items():
        torch.testing.assert_close(ours[1][name], value, atol=2e-6, rtol=0)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """The outcome of each trainer with whole steps, and the weights that it began with."""
    outcomes = {}
    for name, make in TRAINERS.items():
        train = {**PLAIN_DESCENT, "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8}
        trainer = make(model, tmp_path_factory.mktemp(name), **train)
        start = {key: value.detach().clone() for key, value in trainer.model.named_parameters()}
        outcomes[name] = (outcome(trainer), start)
    return outcomes


@pytest.mark.parametrize("name", TRAINERS)
def test_what_is_compared_moves_and_is_complete(name, whole):
    (logs, weights), start = whole[name]
    assert max(float((weights[key] - start[key]).abs().max()) for key in start) > 1e-2
    trained = [row for row in logs if "loss" in row]
    assert [row["step"] for row in trained] == [1, 2, 3, 4]
    assert len({row["loss"] for row in trained}) == 4
    metrics = {"lists": {"rewards/accuracies", "margins", "logps/best", "logps/worst"},
               "listwise": {"accuracy", "mean_reward"}, "classifier": {"accuracy"}}[name]  # fmt: skip
    evaluated = next(row for row in logs if "eval_loss" in row)
    assert metrics <= trained[0].keys()
    assert {f"eval_{metric}" for metric in metrics} <= evaluated.keys()


@pytest.mark.parametrize(("size", "parts"), SPLITS[1:], ids=lambda value: str(value))
@pytest.mark.parametrize("name", TRAINERS)
def test_accumulation_changes_nothing(name, size, parts, whole, model, tmp_path):
    """Also in the last step of an epoch, whose three rows are a micro-batch of two and one of one."""
    split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts}
    trainer = TRAINERS[name](model, tmp_path, **PLAIN_DESCENT, **split, per_device_eval_batch_size=size)
    assert_same(outcome(trainer), whole[name][0])


@pytest.mark.parametrize("name", TRAINERS)
def test_micro_batches_by_tokens_change_nothing(name, whole, model, tmp_path, monkeypatch):
    """A step of eight rows is at least two of them, and the one of three rows has fewer."""
    counts = []
    cut = micro_batches.group_sizes
    monkeypatch.setattr(micro_batches, "group_sizes", lambda *args: counts.append(sizes := cut(*args)) or sizes)
    rows = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8}
    trainer = TRAINERS[name](model, tmp_path, **PLAIN_DESCENT, **rows)
    trainer.tokens_per_batch = 14
    assert_same(outcome(trainer), whole[name][0])
    assert list(map(sum, counts)) == [8, 3, 8, 3]
    assert len(counts[0]) > len(counts[1]) >= 1


@pytest.mark.parametrize("name", TRAINERS)
def test_the_padding_of_the_models_tokenizer_changes_nothing(name, whole, model, tmp_path):
    folder = tmp_path / "left"
    shutil.copytree(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).padding_side == "left"
    train = {**PLAIN_DESCENT, "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8}
    assert_same(outcome(TRAINERS[name](str(folder), tmp_path, **train)), whole[name][0])


def test_a_head_that_tells_no_answers_apart_has_none_in_order(model, tmp_path):
    trainer = listwise(model, tmp_path, **PLAIN_DESCENT)
    torch.nn.init.zeros_(trainer.model.score.weight)
    assert trainer.evaluate()["eval_accuracy"] == 0


@pytest.mark.parametrize("name", TRAINERS)
def test_wider_padding_changes_nothing(name, model, tmp_path):
    trainer = TRAINERS[name](model, tmp_path, **PLAIN_DESCENT)
    trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])
    wider = dict(batch)
    for key in ("input_ids", "attention_mask", "learned"):
        if key in batch:
            pad = trainer.processing_class.pad_token_id if key == "input_ids" else 0
            wider[key] = torch.nn.functional.pad(batch[key], (0, 7), value=pad)
    with torch.no_grad():
        narrow, wide = (trainer.compute_loss(trainer.model, inputs) for inputs in (batch, wider))
    assert wide.item() == pytest.approx(narrow.item(), abs=1e-5)


@pytest.mark.parametrize("name", TRAINERS)
def test_metrics_between_two_logs_are_means_over_their_rows(name, whole, model, tmp_path):
    """Steps of eight and of three rows, logged together."""
    train = {**PLAIN_DESCENT, "logging_steps": 2, "per_device_train_batch_size": 8, "learning_rate": 0.0}
    trainer = TRAINERS[name](model, tmp_path, **train)
    trainer.train()
    both = next(row for row in trainer.state.log_history if "loss" in row)
    trainer.model.eval()
    everything = trainer.data_collator([trainer.train_dataset[i] for i in range(ROWS)])
    with torch.no_grad():
        trainer.compute_loss(trainer.model, everything)
    for metric, (total, count) in trainer._tallies["eval"].items():
        assert both[metric] == pytest.approx(float(total / count), abs=1e-5)


def stages(model, lists, write, ranks):
    """A stage for each of these trainers, whose two epochs are two steps, the last one of three rows, on any ranks."""
    train = {**PLAIN_DESCENT, "gradient_checkpointing": False, "save_strategy": "steps", "save_steps": 1,
             "save_total_limit": 9}  # fmt: skip
    rows = {"classifier": labelled_rows, "reward": ranking_rows}
    data = {name: write(f"{name}.jsonl", make(ROWS)) for name, make in rows.items()}
    held_out = {name: write(f"{name}_test.jsonl", make(EVALUATED)) for name, make in rows.items()}
    answers = str(lists["ranked"].output)
    blocks = {
        "prefer": {"data": answers, "eval_data": answers, "audit": {"overlap": "warn"}},
        "reward": {"data": data["reward"], "eval_data": held_out["reward"], "loss": "listwise"},
        "classifier": {"data": data["classifier"], "eval_data": held_out["classifier"]},
    }
    whole = {}
    for name, block in blocks.items():
        size = 4 if name == "prefer" else 8
        evaluated = {"per_device_eval_batch_size": size // ranks}
        block |= {"model": {"model_name_or_path": model}, "batch_size": size}
        whole[name] = {**block, "train": {**train, **evaluated}}
    return whole


@pytest.mark.slow
def test_two_ranks_are_one(model, lists, write, tmp_path):
    """Also where one has no row of its own in the last step, and in a run that goes on in the midst of an epoch."""
    alone, both, again = (tmp_path / name for name in ("alone", "both", "again"))
    for folder in (alone, both, again):
        folder.mkdir()
    one = run_recipe(alone, stages(model, lists, write, 1))
    two = trained(write_recipe(both, stages(model, lists, write, 2), wandb=False))
    recipe = write_recipe(again, stages(model, lists, write, 2), wandb=False)
    for step in two.values():
        resumed(again, step, 1, TWO)
    for name, gone_on in trained(recipe).items():
        assert two[name].fingerprint == one[name].fingerprint
        assert metrics_of(two[name])["train/steps"] == metrics_of(one[name])["train/steps"]
        assert metrics_of(gone_on)["train/resumed_from"] == 1
        logs = [list(map(compared, tracking.read(step.dir / "metrics.jsonl"))) for step in (two[name], one[name])]
        for row, other in zip(*logs, strict=True):
            assert row == pytest.approx(other, abs=5e-5), name
        tensors = [load_file(step.output / "model.safetensors") for step in (one[name], two[name], gone_on)]
        for key, value in tensors[0].items():
            torch.testing.assert_close(tensors[1][key], value, atol=1e-5, rtol=0)
            torch.testing.assert_close(tensors[2][key], value, atol=1e-5, rtol=0)
