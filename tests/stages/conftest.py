"""A chain of sample, score, pair and evaluate that is run once, and blocks of trainings on a few rows."""

import pytest
from conftest import PAIR_ROWS, SFT_ROWS
from run_steps import run_recipe
from short_trainings import TRAIN, say, write_rows


@pytest.fixture
def sft(model, write):
    return {
        "kind": "sft",
        "model": {"model_name_or_path": model},
        "data": write("sft.jsonl", SFT_ROWS),
        "train": TRAIN,
    }


@pytest.fixture
def pairs(model, write):
    data = write("pairs.jsonl", PAIR_ROWS)
    audit = {"overlap": "warn"}
    return {"model": {"model_name_or_path": model}, "data": data, "eval_data": data, "audit": audit, "train": TRAIN}


def chain(model, prompts):
    """sample -> score -> pair, in both selections, then evaluate."""
    generate = {"max_new_tokens": 6}
    rewards = {"brief": {"kind": "length", "target": 1}, "as": {"kind": "pattern", "regex": "a", "count": True}}
    return {
        "sample": {
            "model": {"model_name_or_path": model},
            "prompts": prompts,
            "num_generations": 3,
            "generate": generate,
            "sample_batch_size": 8,
        },
        "score": {"completions": "$sample", "rewards": rewards, "batch_size": 10},
        "pair": {"completions": "$score", "reward": "as"},
        "all": {"kind": "pair", "completions": "$score", "reward": {"as": 1.0, "brief": 0.1}, "select": "all"},
        "ranked": {"kind": "pair", "completions": "$score", "reward": {"as": 1, "brief": 0.1}, "select": "ranked"},
        "evaluate": {
            "policies": {"one": model, "two": model},
            "reference": model,
            "prompts": prompts,
            "rewards": rewards,
            "generate": generate,
        },
        "report": {},
    }


@pytest.fixture(scope="session")
def chained(model, tmp_path_factory):
    """The steps of the chain, by name."""
    folder = tmp_path_factory.mktemp("chain")
    prompts = write_rows(folder / "prompts.jsonl", [{**row, "tag": i} for i, row in enumerate(say(7))])
    return run_recipe(folder, chain(model, prompts))
