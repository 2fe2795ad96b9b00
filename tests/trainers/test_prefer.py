"""All losses of `prefer` on lists of answers: what they learn, batches, accumulation, LoRA, resumption, two ranks."""

import math

import pytest
import torch
from constrained_runs import logged
from interruptions import killed_in_step
from launches import trained, weights
from outputs import logits, metrics_of, rows_of
from run_steps import broken, run_recipe, write_recipe
from short_trainings import LORA, TRAIN
from tiny_trainers import list_trainer
from transformers import AutoModelForCausalLM

from trimtab.pipelines.recording import artifacts, tracking
from trimtab.pipelines.sampling import transformers_engine

LOSSES = ["dpo", "ipo", "sppo", "orpo", "rrhf", "exo", "plackett_luce"]
WITH_REFERENCE = [loss for loss in LOSSES if loss not in ("orpo", "rrhf")]


def test_log_probabilities_are_those_of_one_answer_at_a_time(model, lists, tmp_path):
    rows = rows_of(lists["ranked"])
    subject = list_trainer(model, rows, tmp_path)
    batch = subject.data_collator(rows)
    logps = subject.compute_loss(subject.model.eval(), batch, return_outputs=True)[1]["logps"]
    assert logps.shape == (len(rows), max(len(row["completions"]) for row in rows))
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    for i, row in enumerate(rows):
        for k, answer in enumerate(row["completion_ids"]):
            ids = torch.tensor([row["prompt_ids"] + answer])
            with torch.no_grad():
                logprobs = policy(input_ids=ids).logits.log_softmax(-1)
            start = len(row["prompt_ids"])
            alone = sum(logprobs[0, start + n - 1, token].item() for n, token in enumerate(answer))
            assert logps[i, k].item() == pytest.approx(alone, abs=1e-4)
            assert row["ref_logps"][k] == pytest.approx(alone, abs=1e-4)
        assert not logps[i, len(row["completion_ids"]) :].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_falls_and_the_best_answer_gains(loss, block, lists, tmp_path, monkeypatch):
    """On lists of two and of more."""
    monkeypatch.setattr(transformers_engine, "load", None)  # the reference is looked at in the model that is trained
    train = {**TRAIN, "max_steps": 12, "per_device_train_batch_size": 9, "learning_rate": 3e-3}
    block |= {"loss": loss, "train": train}
    data = {select: str(lists[select].output) for select in ("ends", "ranked")}
    steps = run_recipe(tmp_path, {select: {**block, "data": path} for select, path in data.items()})
    for step in steps.values():
        first, *_, last = logged(step)
        assert last["train/loss"] < first["train/loss"]
        assert last["train/margins"] > first["train/margins"]
        assert last["train/logps/best"] - last["train/logps/worst"] > (
            first["train/logps/best"] - first["train/logps/worst"]
        )
        if loss in WITH_REFERENCE:
            assert first["train/margins"] == pytest.approx(0, abs=1e-4)  # the policy is its own reference
            assert last["train/margins"] > 0.01
            assert metrics_of(step)["ref_logps/largest_error"] < 1e-4
        assert last["train/rewards/accuracies"] > (0.5 if loss in WITH_REFERENCE else 0)
        assert step.output.joinpath("model.safetensors").exists()


@pytest.mark.parametrize("lora", [{}, LORA])
def test_dpo_on_two_answers_starts_at_ln_2(lora, block, lists, model, tmp_path):
    block |= {"data": str(lists["ends"].output), "model": {"model_name_or_path": model, **lora}}
    step = run_recipe(tmp_path, {"prefer": block})["prefer"]
    assert logged(step)[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert not list(step.output.glob("adapter*"))  # merged
    assert (logits(step.output) - logits(model)).abs().max() > 1e-4


def test_gradient_accumulation_changes_nothing(block, model, tmp_path):
    """One batch of four rows and two of two are the same loss and, by one step of plain descent, the same gradient."""
    train = {**TRAIN, "max_steps": 1, "optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0}
    stages = {}
    for name, parts in (("whole", 1), ("halves", 2), ("quarters", 4)):
        split = {"per_device_train_batch_size": 4 // parts, "gradient_accumulation_steps": parts}
        stages[name] = {**block, "train": {**train, **split}}
    steps = run_recipe(tmp_path, stages)
    whole, *others = (logged(step)[0] for step in steps.values())
    assert (logits(steps["whole"].output) - logits(model)).abs().max() > 1e-3
    for row, step in zip(others, list(steps.values())[1:], strict=True):
        for key in ("train/loss", "train/grad_norm", "train/margins", "train/logps/best", "train/logps/worst"):
            assert row[key] == pytest.approx(whole[key], abs=1e-5)
        torch.testing.assert_close(logits(step.output), logits(steps["whole"].output), atol=1e-6, rtol=0)


def test_bfloat16(model, lists, tmp_path):
    rows = rows_of(lists["ranked"])
    subject = list_trainer(model, rows, tmp_path, bf16=True, max_steps=2, logging_steps=1)
    subject.train()
    assert all(math.isfinite(row["loss"]) for row in subject.state.log_history if "loss" in row)
    subject.model.eval()
    with subject.accelerator.autocast():
        outputs = subject.compute_loss(subject.model, subject.data_collator(rows), return_outputs=True)[1]
    assert outputs["logps"].dtype == torch.float32


@pytest.mark.parametrize("lora", [{}, LORA])
def test_interrupted_it_ends_with_the_weights_of_an_undisturbed_run(lora, block, model, tmp_path):
    from trimtab.pipelines.trainers.lists import ListTrainer

    block |= {"model": {"model_name_or_path": model, **lora}}
    block["train"] |= {"max_steps": 7, "save_steps": 3}
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    undisturbed = run_recipe(a, {"prefer": block})["prefer"]
    with killed_in_step(ListTrainer, 5):
        run_recipe(b, {"prefer": block})
    resumed = run_recipe(b, {"prefer": block})["prefer"]
    assert metrics_of(resumed)["train/resumed_from"] == 3
    assert metrics_of(undisturbed)["train/resumed_from"] == 0
    assert weights(resumed) == weights(undisturbed)
    assert [row["step"] for row in logged(resumed)] == list(range(1, 8))


def evaluations(step):
    """The rows of a step's metrics.jsonl that are an evaluation's during training."""
    return [row for row in tracking.read(step.dir / "metrics.jsonl") if "eval/loss" in row and "step" in row]


def test_evaluation_does_not_depend_on_the_batch(block, lists, tmp_path):
    block |= {"eval_data": str(lists["ranked"].output), "audit": {"overlap": "warn"}}
    train = {**block["train"], "eval_strategy": "steps", "eval_steps": 1}
    sizes = {"by2": 2, "by9": 9}
    stages = {name: {**block, "train": {**train, "per_device_eval_batch_size": size}} for name, size in sizes.items()}
    steps = run_recipe(tmp_path, stages)
    keys = ("eval/loss", "eval/rewards/accuracies", "eval/margins", "eval/logps/best", "eval/logps/worst")
    by2, by9 = map(evaluations, steps.values())
    assert [row["step"] for row in by2[:2]] == [1, 2]
    for few, many in zip(by2, by9, strict=True):
        assert {key: few[key] for key in keys} == pytest.approx({key: many[key] for key in keys}, abs=1e-4)
    assert metrics_of(steps["by9"])["eval/loss"] == by9[-1]["eval/loss"]
    assert 0 <= by9[-1]["eval/rewards/accuracies"] <= 1


def test_rows_that_do_not_fit_are_left_out_and_counted(block, lists, tmp_path, capsys):
    lengths = [len(row["prompt_ids"]) + max(map(len, row["completion_ids"])) for row in rows_of(lists["ranked"])]
    limit = sorted(lengths)[len(lengths) // 2]
    block["train"]["max_length"] = limit
    lost = sum(length > limit for length in lengths)
    assert lost
    assert metrics_of(run_recipe(tmp_path, {"prefer": block})["prefer"])["train/rows_too_long"] == lost
    block["train"]["max_length"] = min(lengths) - 1
    message = f"ValueError: none of {len(lengths)} rows fits in max_length {min(lengths) - 1}"
    assert message in broken(tmp_path, {"prefer": block}, capsys)


@pytest.mark.slow
def test_two_ranks_take_the_step_of_one(block, tmp_path):
    """Two rows on each of two ranks are the gradient and the metrics of four rows on one."""
    train = {**TRAIN, "max_steps": 1, "optim": "sgd", "learning_rate": 0.5, "per_device_train_batch_size": 4}
    alone = run_recipe(tmp_path, {"prefer": {**block, "train": train}})["prefer"]
    halves = {**block, "train": {**train, "per_device_train_batch_size": 2}}
    (tmp_path / "both").mkdir()
    both = trained(write_recipe(tmp_path / "both", {"prefer": halves}, wandb=False))["prefer"]
    assert artifacts.read_done(both.dir)["world_size"] == 2
    torch.testing.assert_close(logits(both.output), logits(alone.output), atol=1e-5, rtol=0)
    one, two = logged(alone)[0], logged(both)[0]
    for key in ("train/loss", "train/rewards/accuracies", "train/margins", "train/logps/best", "train/logps/worst"):
        assert two[key] == pytest.approx(one[key], abs=1e-4)
