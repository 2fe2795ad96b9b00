"""Reward models: they score as they were trained, pairwise and listwise."""

import statistics

import pytest
import torch
from conftest import PAIR_ROWS, SFT_ROWS
from outputs import logits, metrics_of
from run_steps import run_recipe
from short_trainings import LORA, TRAIN
from transformers import AutoModelForSequenceClassification

from trimtab.pipelines.planning import schema


@pytest.mark.parametrize("lora", [{}, LORA])
def test_reward_model_is_complete_and_scores_as_it_was_trained(lora, pairs, tmp_path, model):
    block = {**pairs, "model": {"model_name_or_path": model, **lora}, "train": {**TRAIN, "max_steps": 30}}
    step = run_recipe(tmp_path, {"reward": block})["reward"]
    accuracy = metrics_of(step)["eval/accuracy"]
    reward = schema.load_reward({"kind": "reward_model", "path": str(step.output)})
    prompts = [row["prompt"] for row in PAIR_ROWS]
    chosen = reward(prompts=prompts, completions=[row["chosen"] for row in PAIR_ROWS])
    rejected = reward(prompts=prompts, completions=[row["rejected"] for row in PAIR_ROWS])
    measured = sum(a > b for a, b in zip(chosen, rejected, strict=True)) / len(chosen)
    assert measured == pytest.approx(accuracy)
    normal = schema.load_reward({"kind": "reward_model", "path": str(step.output), "normalize": True})
    both = normal(prompts=prompts * 2, completions=[row[key] for key in ("chosen", "rejected") for row in PAIR_ROWS])
    assert (statistics.fmean(both), statistics.pstdev(both)) == pytest.approx((0, 1), abs=1e-5)  # it was the eval data
    assert lora or accuracy > 0.9


def test_listwise_reward_model_learns_the_ranking(model, tmp_path, write):
    rows = [
        {
            "prompt": row["prompt"],
            "completions": [[{"role": "assistant", "content": text + f" {i}"}] for text in ("a and b", "a", "c c")][
                : 2 + i % 2
            ],
        }
        for i, row in enumerate(SFT_ROWS)
    ]
    data = write("ranked.jsonl", rows)
    train = {**TRAIN, "max_steps": 40, "learning_rate": 3e-3}
    block = {
        "kind": "reward",
        "loss": "listwise",
        "model": {"model_name_or_path": model},
        "data": data,
        "eval_data": data,
        "audit": {"overlap": "warn"},
        "train": train,
    }
    step = run_recipe(tmp_path, {"ranked": block})["ranked"]
    assert metrics_of(step)["eval/accuracy"] > 0.9
    logits(step.output, AutoModelForSequenceClassification)


def test_all_losses_agree_on_two_answers(model, tmp_path, write):
    """Plackett-Luce on K = 2 is Bradley-Terry, so all trainers end with the same weights."""
    ranked = [{"prompt": row["prompt"], "completions": [row["chosen"], row["rejected"]]} for row in PAIR_ROWS]
    grouped = [{**row, "completion_scores": [1.0, 0.0]} for row in ranked]
    common = {"kind": "reward", "model": {"model_name_or_path": model}, "train": TRAIN}
    steps = run_recipe(
        tmp_path,
        {
            "pairs": {**common, "data": write("pairs.jsonl", PAIR_ROWS)},
            "lists": {**common, "data": write("ranked.jsonl", ranked), "loss": "listwise"},
            "groups": {**common, "data": write("grouped.jsonl", grouped), "loss": "all_pairs"},
        },
    )
    pairs, *others = [logits(step.output, AutoModelForSequenceClassification) for step in steps.values()]
    for other in others:
        torch.testing.assert_close(other, pairs, atol=1e-5, rtol=0)
