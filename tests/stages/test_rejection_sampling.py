"""Kind `rejection_sampling`: what it trains on is the best, and of what is required."""

from outputs import rows_of
from run_steps import run_recipe
from short_trainings import TRAIN

LEAST = -0.5  # of the scores that a model without training has, a part of them


def test_the_best_of_what_is_required_is_trained_on(model, prompts, tmp_path):
    block = {
        "kind": "rejection_sampling",
        "model": {"model_name_or_path": model},
        "prompts": prompts,
        "rewards": {
            "right": {"kind": "length", "target": 12, "unit": "characters"},
            "as": {"kind": "pattern", "regex": "a", "count": True},
        },
        "reward": "as",
        "num_generations": 4,
        "generate": {"max_new_tokens": 6},
        "curate": {"require": {"right": LEAST}},
        "train": TRAIN,
    }
    steps = run_recipe(tmp_path, {"improve": block})
    scored, kept = rows_of(steps["improve-score"]), rows_of(steps["improve-curate"])
    assert 0 < len(kept) <= len({row["prompt_index"] for row in scored})
    for row in kept:
        right = [
            other["scores"]["as"]
            for other in scored
            if other["prompt_index"] == row["prompt_index"] and other["scores"]["right"] >= LEAST
        ]
        assert row["score"] == max(right)
    assert any(row["scores"]["right"] < LEAST for row in scored), "something was refused"
    assert (steps["improve"].output / "model.safetensors").exists()
